"""The learner `mlp`: the network and its gradients against NumPy, labels, sizes, and training taken up again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import imagery
from support.idx import random_set, write_set

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.learners import Facts, Hints, nets
from collapse_cli.learners.mlp import Mlp, TwoLayers

SMALL = {"width": 12, "epochs": 3, "batch_size": 32}


def labelled(count: int, seed: int = 0, pixels: int = 20) -> Dataset:
    """Images whose label is the brightest of their first ten pixels."""
    x = np.random.default_rng(seed).random((count, pixels), np.float32)
    return Dataset({"x": x, "y": np.eye(10, dtype=np.float32)[x[:, :10].argmax(1)]}, np.zeros(count, np.int32))


def trained(
    data: Dataset, scratch: Path, seed: int = 1, encoded: Path | None = None, **settings: Any
) -> tuple[Any, Facts]:
    scratch.mkdir(exist_ok=True)
    mlp = imagery.made("mlp", imagery.experiment_of("mlp", **(SMALL | settings)), encoded)
    return mlp, mlp.fit(data, seed=seed, scratch=scratch)


def fitted(data: Dataset, scratch: Path, **more: Any) -> Any:
    return trained(data, scratch, **more)[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fitted(labelled(100), tmp_path_factory.mktemp("scratch"))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def outputs(state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    w = {name: array.astype(np.float64) for name, array in state.items()}
    hidden = np.maximum(x @ w["hidden.weight"].T + w["hidden.bias"], 0)
    return hidden @ w["output.weight"].T + w["output.bias"]


def test_score_and_measures_are_those_of_numpy(small: Any) -> None:
    test = labelled(300, seed=5)
    found = outputs(small.state(), test.arrays["x"])
    errors = ((found - test.arrays["y"]) ** 2).mean(1)
    np.testing.assert_allclose(small.score(test), errors, rtol=1e-4)
    outcome = small.measure(test)
    rows, facts = outcome.rows, outcome.facts
    np.testing.assert_array_equal(rows.arrays["loss"], small.score(test))
    assert facts["test_loss"] == pytest.approx(errors.mean(), rel=1e-5)
    assert facts["error"] == pytest.approx(errors.mean(), rel=1e-5)
    assert facts["accuracy"] == (found.argmax(1) == test.arrays["y"].argmax(1)).mean()


def test_training_is_adamw_by_hand_on_gradients_by_hand(tmp_path: Path) -> None:
    """Two epochs in NumPy, in float64: backpropagation through two layers, and AdamW as its paper has it."""
    data, lr, decay = labelled(50), 1e-2, 0.1
    mlp, facts = trained(data, tmp_path, seed=4, epochs=2, lr=lr, weight_decay=decay)
    start: Any = nets.start(lambda: TwoLayers(20, 12), 4)
    w = {name: value.numpy().astype(np.float64) for name, value in start.state_dict().items()}
    first, second, step, losses = dict.fromkeys(w, 0.0), dict.fromkeys(w, 0.0), 0, []
    for epoch in range(2):
        words = np.random.SeedSequence([4, epoch]).generate_state(1, np.uint64)
        order = torch.randperm(50, generator=torch.Generator().manual_seed(int(words[0] >> 1))).numpy()
        total = 0.0
        for chosen in (order[:32], order[32:]):
            x, y = data.arrays["x"][chosen].astype(np.float64), data.arrays["y"][chosen]
            before = x @ w["hidden.weight"].T + w["hidden.bias"]
            hidden = np.maximum(before, 0)
            left = hidden @ w["output.weight"].T + w["output.bias"] - y
            total += (left**2).mean(1).sum()
            of_output = 2 * left / left.size
            of_hidden = (of_output @ w["output.weight"]) * (before > 0)
            gradients = {
                "hidden.weight": of_hidden.T @ x,
                "hidden.bias": of_hidden.sum(0),
                "output.weight": of_output.T @ hidden,
                "output.bias": of_output.sum(0),
            }
            step += 1
            for name, gradient in gradients.items():
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                change = first[name] / (1 - 0.9**step) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
                w[name] = w[name] * (1 - lr * decay) - lr * change
        losses.append(total / 50)
    assert facts["train_loss"] == pytest.approx(losses[-1], rel=1e-4)
    for name, array in mlp.state().items():
        np.testing.assert_allclose(array, w[name], rtol=1e-3, atol=1e-5)


def test_it_learns_what_can_be_learned(tmp_path: Path) -> None:
    mlp = fitted(labelled(2000), tmp_path, width=64, epochs=20, lr=5e-3)
    facts = mlp.measure(labelled(500, seed=1)).facts
    assert facts["accuracy"] > 0.7
    assert facts["error"] < 0.07  # 0.09 is that of always answering with the shares


def test_synthetic_labels_are_outputs_or_one_hot(small: Any, tmp_path: Path) -> None:
    data = labelled(300, seed=2)
    outcome = small.sample(imagery.prompts(data), seed=0, scratch=tmp_path)
    soft, facts = outcome.rows, outcome.facts
    expected = outputs(small.state(), data.arrays["x"])
    np.testing.assert_array_equal(soft.arrays["x"], data.arrays["x"])
    np.testing.assert_allclose(soft.arrays["y"], expected, atol=1e-5)
    assert facts == {"sample_rows": 300}
    hard = imagery.made("mlp", imagery.experiment_of("mlp", **SMALL, labels="hard"))
    hard.restore(small.state())
    made = hard.sample(imagery.prompts(data), seed=0, scratch=tmp_path).rows
    np.testing.assert_array_equal(made.arrays["y"], np.eye(10)[soft.arrays["y"].argmax(1)])
    for one in (soft, made):
        assert one.arrays.keys() == data.arrays.keys()
        assert {name: one.arrays[name].dtype for name in "xy"} == {"x": np.float32, "y": np.float32}
        assert len(Dataset.concat([data, one])) == 600


def test_a_label_does_not_depend_on_the_rows_beside_it_nor_on_the_seed(small: Any, tmp_path: Path) -> None:
    data = labelled(300, seed=2)
    whole = small.sample(imagery.prompts(data), seed=0, scratch=tmp_path).rows.arrays["y"]
    some = np.array([299, 3])
    few = small.sample(imagery.prompts(data.take(some), some), seed=1, scratch=tmp_path).rows.arrays["y"]
    np.testing.assert_allclose(few, whole[some], atol=1e-6)
    assert small.sample(imagery.prompts(data.take(some[:0])), seed=1, scratch=tmp_path).rows.arrays["y"].shape == (
        0,
        10,
    )


def test_the_same_seed_gives_the_same_bits_and_another_others(small: Any, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again, other = fitted(labelled(100), tmp_path / "a"), fitted(labelled(100), tmp_path / "b", seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(again.state(), small.state())
    assert not same(other.state(), small.state())


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize("select", ["last", "valid"])
def test_a_killed_training_is_taken_up_to_the_same_bits(tmp_path: Path, select: str) -> None:
    data = labelled(100)
    labelled(30, seed=9).save(tmp_path / "valid.safetensors")
    tree = imagery.experiment_of("mlp", **(SMALL | {"epochs": 6, "lr": 0.3, "select": select}))
    through = imagery.made("mlp", tree, tmp_path)
    (tmp_path / "a").mkdir()
    through_facts = through.fit(data, seed=1, scratch=tmp_path / "a")
    killed = Mlp(Mlp.params(tree, "train"), Hints(encoded=tmp_path), imagery.KilledAfter(4))
    (tmp_path / "b").mkdir()
    with pytest.raises(imagery.Killed):
        killed.fit(data, seed=1, scratch=tmp_path / "b")
    resumed = imagery.made("mlp", tree, tmp_path)
    resumed_facts = resumed.fit(data, seed=1, scratch=tmp_path / "b")
    assert same(resumed.state(), through.state())
    assert resumed_facts == through_facts


def test_selection_keeps_the_epoch_with_the_lowest_validation_error(tmp_path: Path) -> None:
    """Against trainings that end after each epoch: the same weights as of the best of them, and not of the last."""
    data, valid = labelled(100), labelled(60, seed=9)
    valid.save(tmp_path / "valid.safetensors")
    ends = [fitted(data, tmp_path / str(epochs), epochs=epochs, lr=0.3) for epochs in range(1, 8)]
    errors = [float(end.score(valid).mean()) for end in ends]
    kept = fitted(data, tmp_path / "v", encoded=tmp_path, epochs=7, lr=0.3, select="valid")
    best = int(np.argmin(errors))
    assert best < 6
    assert same(kept.state(), ends[best].state())


def test_selection_needs_validation_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mlp\.select = valid, but no validation images were put aside"):
        fitted(labelled(50), tmp_path, encoded=tmp_path, select="valid")
    facts = imagery.encoded("mlp", imagery.experiment_of("mlp", select="valid"), tmp_path / "digits")
    assert facts["splits"]["valid"]["rows"] == 144
    assert facts["splits"]["train"]["rows"] == 1294
    facts = imagery.encoded("mlp", imagery.experiment_of("mlp"), tmp_path / "all")
    assert "valid" not in facts["splits"]


def test_steps_stand_in_for_epochs(tmp_path: Path) -> None:
    """64 rows in batches of 32 are two steps an epoch; 9 steps are four epochs, 1 step is one."""
    for rows, steps, epochs in ((64, 9, 4), (64, 1, 1), (20, 9, 9), (64, 0, 3)):
        _, facts = trained(labelled(rows), tmp_path / f"{rows}-{steps}", steps=steps)
        assert facts["epochs"] == epochs


def test_a_size_is_the_width_and_nothing_else() -> None:
    tree = imagery.experiment_of("mlp")
    sized = Mlp.sized(tree, 77)
    assert sized.mlp.width == 77
    assert Mlp.sized(sized, tree.mlp.width) == tree
    assert tree.mlp.width != 77
    for width in (77, 200):
        resolved = Mlp.resolve(Mlp.sized(tree, width))
        assert resolved.parameters == 64 * width + width + width * 10 + 10
    assert Mlp.resolve(tree).config.data.sha256


def test_labels_of_more_than_ten_classes_are_refused(tmp_path: Path) -> None:
    pixels, labels = random_set(30)
    labels[7] = 10
    write_set(tmp_path / "m", "train", pixels, labels)
    with pytest.raises(InputError, match=r"has a label 10; the learner mlp takes 0\.\.9"):
        Mlp.resolve(imagery.experiment_of("mlp", source=str(tmp_path / "m")))


def test_saved_and_loaded_it_is_the_same_and_is_trained_on(small: Any, tmp_path: Path) -> None:
    small.save(tmp_path)
    loaded = imagery.made("mlp", imagery.experiment_of("mlp", **SMALL))
    loaded.load(tmp_path)
    assert same(loaded.state(), small.state())
    loaded_facts = loaded.fit(labelled(100), seed=1, scratch=tmp_path)
    _, new_facts = trained(labelled(100), tmp_path / "new")
    assert loaded_facts["train_loss"] < new_facts["train_loss"]


def test_a_loss_that_is_not_finite_ends_training_in_one_line(tmp_path: Path) -> None:
    data = labelled(40)
    data.arrays["y"][3] = np.inf
    with pytest.raises(InputError, match=r"the loss is (inf|nan) in epoch 1 of 3; lower mlp\.lr"):
        fitted(data, tmp_path)


def test_bad_labels_cost_accuracy_on_real_mnist_and_more_of_them_more(shared_data: Path, tmp_path: Path) -> None:
    """A network that learned from 200 images labels others; what is learned from those is worse than from the truth."""
    tree = imagery.experiment_of("mlp", source=str(shared_data / "mnist"), eval_rows=1000, width=100, steps=300)
    imagery.encoded("mlp", tree, tmp_path)
    corpus, test = (Dataset.load(tmp_path / f"{name}.safetensors") for name in ("train", "test"))
    errors = {}

    def error_of(data: Dataset, name: str) -> Any:
        (tmp_path / name).mkdir()
        mlp = imagery.made("mlp", tree)
        mlp.fit(data, seed=0, scratch=tmp_path / name)
        facts = mlp.measure(test).facts
        errors[name] = facts["error"]
        return mlp

    generator = error_of(corpus.take(np.arange(200)), "generator")
    real, asked = corpus.take(np.arange(200, 2200)), corpus.take(np.arange(2200, 4200))
    made = generator.sample(imagery.prompts(asked), seed=0, scratch=tmp_path).rows
    error_of(real, "none")
    error_of(Dataset.concat([real.take(np.arange(1000)), made.take(np.arange(1000))]), "half")
    error_of(made, "all")
    assert errors["none"] < errors["half"] < errors["all"]
    assert errors["none"] < 0.6 * errors["generator"]
