"""The learner `vae`: the notebook's network and loss, sampling, latents, and training taken up again."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import imagery
from support.idx import random_set, write_set
from support.trees import put

from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.learners import Facts, Hints, nets
from collapse_cli.learners.vae import Autoencoder, Vae, loss_terms

SMALL = {"channels": (4, 6), "latent": 3, "epochs": 2, "batch_size": 32}


def pictures(count: int, seed: int = 0, size: int = 8) -> Dataset:
    x = np.random.default_rng(seed).random((count, size, size), np.float32)
    return Dataset({"x": x}, np.zeros(count, np.int32))


def trained(data: Dataset, scratch: Path, seed: int = 1, **settings: Any) -> tuple[Any, Facts]:
    vae = imagery.made("vae", imagery.experiment_of("vae", **(SMALL | settings)))
    return vae, vae.fit(data, seed=seed, scratch=scratch)


def fitted(data: Dataset, scratch: Path, seed: int = 1, **settings: Any) -> Any:
    return trained(data, scratch, seed, **settings)[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fitted(pictures(100), tmp_path_factory.mktemp("scratch"))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_network_of_the_notebook_has_647081_parameters() -> None:
    """The count in the notebook's output; for 28 x 28 pixels and the default configuration."""
    net = Autoencoder(28, 28, (64, 128), 20)
    assert sum(weight.numel() for weight in net.parameters()) == 647_081
    assert net.inner.out_features == 6272
    mean, log_variance = net.encode(torch.zeros(3, 1, 28, 28))
    assert mean.shape == log_variance.shape == (3, 20)
    assert net.decode(mean).shape == (3, 1, 28, 28)


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(out, height / 2, width / 2): a convolution of kernel 4, stride 2, padding 1, number by number."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    height, width = x.shape[1] // 2, x.shape[2] // 2
    found = np.empty((len(weight), height, width))
    for i in range(height):
        for j in range(width):
            found[:, i, j] = (weight * padded[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]).sum((1, 2, 3)) + bias
    return found


def transposed(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(out, 2 height, 2 width): its transpose; each number spreads a kernel."""
    height, width = x.shape[1:]
    found = np.zeros((weight.shape[1], 2 * height + 2, 2 * width + 2))
    for i in range(height):
        for j in range(width):
            found[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("c,cokl->okl", x[:, i, j], weight)
    return found[:, 1:-1, 1:-1] + bias[:, None, None]


def test_score_and_its_terms_are_those_of_loops_over_pixels(small: Any) -> None:
    """The whole forward pass in NumPy, and the losses from their definitions."""
    test, w = pictures(3, seed=5), {name: array.astype(np.float64) for name, array in small.state().items()}
    expected = []
    for x in test.arrays["x"].astype(np.float64):
        hidden = np.maximum(convolved(x[None], w["encode_1.weight"], w["encode_1.bias"]), 0)
        hidden = np.maximum(convolved(hidden, w["encode_2.weight"], w["encode_2.bias"]), 0).ravel()
        mean = w["mean.weight"] @ hidden + w["mean.bias"]
        log_variance = w["log_variance.weight"] @ hidden + w["log_variance.bias"]
        inner = (w["inner.weight"] @ mean + w["inner.bias"]).reshape(6, 2, 2)
        inner = np.maximum(transposed(inner, w["decode_1.weight"], w["decode_1.bias"]), 0)
        p = 1 / (1 + np.exp(-transposed(inner, w["decode_2.weight"], w["decode_2.bias"])[0]))
        error = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum()
        kl = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance).sum()
        expected.append((error, kl))
    np.testing.assert_allclose(small.score(test), np.sum(expected, 1), rtol=1e-5)
    facts = small.measure(test).facts
    found = facts["reconstruction"], facts["kl"]
    np.testing.assert_allclose(found, np.mean(expected, 0), rtol=1e-5)
    assert facts["test_loss"] == pytest.approx(sum(found))


def test_the_loss_is_torchs_binary_cross_entropy_and_kl_divergence() -> None:
    random = torch.Generator().manual_seed(0)
    logits, x = (torch.randn(5, 1, 8, 8, generator=random) for _ in range(2))
    mean, log_variance = (torch.randn(5, 3, generator=random) for _ in range(2))
    x = x.sigmoid()
    error, kl = loss_terms(logits, x, mean, log_variance)
    theirs = torch.nn.functional.binary_cross_entropy(logits.sigmoid(), x, reduction="sum")
    torch.testing.assert_close(error.sum(), theirs)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(kl, divergence.sum(1))


def test_beta_weighs_the_divergence_in_score(small: Any) -> None:
    test = pictures(10, seed=3)
    heavy = imagery.made("vae", imagery.experiment_of("vae", **SMALL, beta=4.0))
    heavy.restore(small.state())
    facts = heavy.measure(test).facts
    assert facts["test_loss"] == pytest.approx(facts["reconstruction"] + 4 * facts["kl"])


def test_training_is_what_a_plain_loop_does(tmp_path: Path) -> None:
    """Adam on the summed loss, batch for batch in the order and with the noise of the seed; torch's own convolutions."""
    data, tree = pictures(70), imagery.experiment_of("vae", **SMALL)
    vae = imagery.made("vae", tree)
    facts = vae.fit(data, seed=4, scratch=tmp_path)
    net: Any = nets.start(lambda: Autoencoder(8, 8, (4, 6), 3), 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-5, foreach=False)
    x, epoch_losses = torch.from_numpy(data.arrays["x"])[:, None], []
    for epoch in range(2):
        words = np.random.SeedSequence([4, epoch]).generate_state(1, np.uint64)
        random = torch.Generator().manual_seed(int(words[0] >> 1))
        order, total = torch.randperm(70, generator=random), 0.0
        for chosen in (order[:32], order[32:64], order[64:]):
            mean, log_variance = net.encode(x[chosen])
            z = mean + torch.randn((len(chosen), 3), generator=random) * (log_variance / 2).exp()
            p = net.decode(z).sigmoid()
            loss = torch.nn.functional.binary_cross_entropy(p, x[chosen], reduction="sum")
            loss = loss + 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        epoch_losses.append(total / 70)
    np.testing.assert_allclose(facts["epoch_losses"], epoch_losses, rtol=1e-5)
    for name, weight in net.state_dict().items():
        np.testing.assert_allclose(vae.state()[name], weight.numpy(), rtol=1e-3, atol=1e-5)


def test_training_learns(tmp_path: Path) -> None:
    """Images with one bright half: after some steps most of the loss is gone, and samples have one bright half."""
    x = np.zeros((64, 8, 8), np.float32)
    x[:32, :4], x[32:, 4:] = 1, 1
    data = Dataset({"x": x}, np.zeros(64, np.int32))
    vae, facts = trained(data, tmp_path, epochs=80, lr=2e-2, batch_size=64)
    assert facts["epoch_losses"][0] > 30
    assert facts["train_loss"] < 5
    made = vae.sample(imagery.prompts(data), seed=0, scratch=tmp_path).rows.arrays["x"]
    halves = np.stack([made[:, :4].mean((1, 2)), made[:, 4:].mean((1, 2))], 1)
    assert (np.abs(halves[:, 0] - halves[:, 1]) > 0.5).mean() > 0.75


# --- starts, seeds, and kills -----------------------------------------------------------------------------------------


def test_weights_begin_as_torchs_own_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    net: Any = nets.start(lambda: Autoencoder(28, 28, (64, 128), 20), 3)
    assert torch.equal(torch.get_rng_state(), state)
    theirs = Autoencoder(28, 28, (64, 128), 20)
    for name, weight in theirs.named_parameters():
        fan_in, _ = torch.nn.init._calculate_fan_in_and_fan_out(theirs.get_parameter(f"{name.split('.')[0]}.weight"))
        ours = net.get_parameter(name)
        for one in (ours, weight):
            assert one.abs().max() <= fan_in**-0.5, name
            assert one.abs().max() > 0.8 * fan_in**-0.5 or one.numel() < 10, name
        if weight.numel() > 500:
            assert float(ours.detach().std()) == pytest.approx(float(weight.detach().std()), rel=0.1), name


def test_the_same_seed_gives_the_same_bits_and_another_others(small: Any, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again, other = fitted(pictures(100), tmp_path), fitted(pictures(100), tmp_path, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(again.state(), small.state())
    assert not same(other.state(), small.state())


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_killed_training_is_taken_up_to_the_same_bits(tmp_path: Path, dtype: str) -> None:
    data, tree = pictures(100), imagery.experiment_of("vae", **(SMALL | {"epochs": 4, "dtype": dtype}))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    through = imagery.made("vae", tree)
    through_facts = through.fit(data, seed=1, scratch=tmp_path / "a")
    killed = Vae(Vae.params(tree, "train"), Hints(), imagery.KilledAfter(2))
    with pytest.raises(imagery.Killed):
        killed.fit(data, seed=1, scratch=tmp_path / "b")
    done = []
    resumed = Vae(Vae.params(tree, "train"), Hints(), lambda *told: done.append(told))
    resumed_facts = resumed.fit(data, seed=1, scratch=tmp_path / "b")
    assert done == [(300, 400, "rows"), (400, 400, "rows")]
    assert same(resumed.state(), through.state())
    assert resumed_facts == through_facts


def test_a_restored_model_is_trained_on_and_a_new_one_from_scratch(small: Any, tmp_path: Path) -> None:
    data, tree = pictures(100), imagery.experiment_of("vae", **(SMALL | {"epochs": 1}))
    new, on = imagery.made("vae", tree), imagery.made("vae", tree)
    new_facts = new.fit(data, seed=9, scratch=tmp_path)
    on.restore(small.state())
    on_facts = on.fit(data, seed=9, scratch=tmp_path)
    assert on_facts["train_loss"] < new_facts["train_loss"]


def test_saved_and_loaded_it_is_the_same(small: Any, tmp_path: Path) -> None:
    small.save(tmp_path)
    loaded = imagery.made("vae", imagery.experiment_of("vae", **SMALL))
    loaded.load(tmp_path)
    assert same(loaded.state(), small.state())
    test = pictures(20, seed=7)
    np.testing.assert_array_equal(loaded.score(test), small.score(test))


# --- samples and latents ----------------------------------------------------------------------------------------------


def test_samples_are_the_decoders_means_of_their_streams_latents(small: Any, tmp_path: Path) -> None:
    prompts = imagery.prompts(pictures(300), np.arange(300)[::-1].copy())
    outcome = small.sample(prompts, seed=5, scratch=tmp_path)
    made, facts = outcome.rows, outcome.facts
    assert made.arrays["x"].shape == (300, 8, 8)
    assert made.arrays["x"].dtype == np.float32
    z = np.random.Generator(np.random.Philox(5)).standard_normal((300, 3)).astype(np.float32)[::-1].copy()
    with torch.inference_mode():
        expected = small._net.decode(torch.from_numpy(z)).sigmoid()[:, 0].numpy()
    np.testing.assert_allclose(made.arrays["x"], expected, atol=1e-6)
    assert facts == {"sample_rows": 300}


def test_a_sample_does_not_depend_on_the_rows_beside_it(small: Any, tmp_path: Path) -> None:
    whole = small.sample(imagery.prompts(pictures(300)), seed=5, scratch=tmp_path).rows
    some = np.array([7, 299, 12])
    few = small.sample(imagery.prompts(pictures(3, seed=8), some), seed=5, scratch=tmp_path).rows
    np.testing.assert_allclose(few.arrays["x"], whole.arrays["x"][some], atol=1e-6)
    other = small.sample(imagery.prompts(pictures(300)), seed=6, scratch=tmp_path).rows
    assert np.abs(other.arrays["x"] - whole.arrays["x"]).max() > 1e-3
    assert len(small.sample(imagery.prompts(pictures(0)), seed=5, scratch=tmp_path).rows) == 0


def test_rows_that_are_only_shown_do_not_count(small: Any, tmp_path: Path) -> None:
    data = pictures(10)
    prompts = Dataset({**data.arrays, "stream": np.arange(10), "extra": np.arange(10) >= 7}, data.origin)
    outcome = small.sample(prompts, seed=0, scratch=tmp_path)
    assert len(outcome.rows) == 10
    assert outcome.facts["sample_rows"] == 7


def test_latents_of_samples_are_measured_under_the_first_model(small: Any, tmp_path: Path) -> None:
    samples, test = pictures(50, seed=1), pictures(30, seed=2)
    test.save(tmp_path / "test.safetensors")
    vae = imagery.made("vae", imagery.experiment_of("vae", **SMALL, measured=20), tmp_path)
    vae.restore(small.state())
    facts = vae.look_at_real(tmp_path)
    assert facts == {"rows": 20}
    outcome = vae.examine(samples, samples.take(np.arange(2)), samples, real=tmp_path, first=None)
    rows, facts = outcome.rows, outcome.facts
    with torch.inference_mode():
        means = small._net.encode(torch.from_numpy(samples.arrays["x"])[:, None])[0].numpy()[:20]
        evenly = test.arrays["x"][np.linspace(0, 29, 20).round().astype(int)]
        of_real = small._net.encode(torch.from_numpy(evenly)[:, None])[0].numpy()
    np.testing.assert_allclose(rows.arrays["latents"], means, atol=1e-5)
    assert facts["latent_spread"] == pytest.approx(means.std(0).mean(), rel=1e-4)
    assert facts["latent_std_all"] == pytest.approx(means.std(), rel=1e-4)
    assert facts["latent_mean"] == pytest.approx(means.mean(), rel=1e-4)
    assert facts["latent_spread_real"] == pytest.approx(of_real.std(0).mean(), rel=1e-4)
    assert facts["latent_std_all_real"] == pytest.approx(of_real.std(), rel=1e-4)
    assert facts["sample_rows"] == 50
    shown = facts["pictures"]
    assert (shown["height"], shown["width"], len(shown["rows"])) == (8, 8, 2)
    pixels = np.frombuffer(base64.b64decode(shown["rows"][1]), np.uint8).reshape(8, 8)
    np.testing.assert_allclose(pixels / 255, samples.arrays["x"][1], atol=0.5 / 255 + 1e-6)


def test_the_error_given_for_the_spread_is_that_of_repetitions(small: Any, tmp_path: Path) -> None:
    """The spread of normal, independent latents over many sets of images, against the formula's error."""
    random = np.random.default_rng(0)
    sets = random.standard_normal((2000, 100, 5)) * np.array([0.2, 0.5, 1.0, 1.0, 2.0])
    each = sets.std(1)
    formula = np.sqrt((each**2).sum(1) / (2 * 99)) / 5
    assert formula.mean() == pytest.approx(each.mean(1).std(), rel=0.1)
    latents = sets[0].astype(np.float32)
    Dataset({"latents": latents}, np.zeros(100, np.int32)).save(tmp_path / "latents.safetensors")
    small._means = lambda images: latents
    try:
        facts = small.examine(pictures(100), pictures(1), pictures(100), real=tmp_path, first=None).facts
    finally:
        del small._means
    assert facts["latent_spread_scatter"] == pytest.approx(formula[0], rel=1e-5)


# --- what is looked up ------------------------------------------------------------------------------------------------


def test_resolving_fills_in_hash_and_costs_and_encoding_gives_the_corpus(tmp_path: Path) -> None:
    tree = imagery.experiment_of("vae", rows=200, eval_rows=50)
    resolved = Vae.resolve(tree)
    assert len(resolved.config.data.sha256) == 64
    assert resolved.parameters == sum(weight.numel() for weight in Autoencoder(8, 8, (64, 128), 20).parameters())
    assert resolved.row_bytes == 256
    assert resolved.row_flops > 0
    facts = imagery.encoded("vae", tree, tmp_path)
    assert {name: split["rows"] for name, split in facts["splits"].items()} == {
        "train": 200,
        "test": 50,
        "reserve": 1238,
    }
    corpus = Dataset.load(tmp_path / "train.safetensors")
    assert corpus.arrays["x"].shape == (200, 8, 8)
    assert not corpus.origin.any()


def test_images_that_four_does_not_divide_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "m", "train", *random_set(30, size=10))
    with pytest.raises(InputError, match=r"images of 10 x 10 pixels; the learner vae takes those that 4 divides"):
        Vae.resolve(imagery.experiment_of("vae", source=str(tmp_path / "m")))


def test_more_rows_than_there_are_and_other_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"data\.rows = 9,999"):
        Vae.resolve(imagery.experiment_of("vae", rows=9999))
    plain = imagery.experiment_of("vae").model_dump(mode="json")
    tree = Experiment.model_validate(put(plain, {"data__sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"data\.sha256"):
        Vae.resolve(tree)


def test_a_loss_that_is_not_finite_ends_training_in_one_line(tmp_path: Path) -> None:
    data = pictures(40)
    data.arrays["x"][3] = np.nan
    with pytest.raises(InputError, match=r"the loss is nan in epoch 1 of 2; lower vae\.lr"):
        fitted(data, tmp_path)
    with pytest.raises(InputError, match="no rows to train on"):
        fitted(pictures(0), tmp_path)


def test_three_generations_on_real_mnist_lose_spread(shared_data: Path, tmp_path: Path) -> None:
    """The thing itself, smaller: fewer images, channels and epochs than the paper's."""
    tree = imagery.experiment_of(
        "vae", source=str(shared_data / "mnist"), rows=1000, eval_rows=100, channels=(8, 16), epochs=10, batch_size=32
    )
    imagery.encoded("vae", tree, tmp_path)
    corpus, test = (Dataset.load(tmp_path / f"{name}.safetensors") for name in ("train", "test"))
    reference, spreads, losses = None, [], []
    for generation in range(3):
        vae = imagery.made("vae", tree, tmp_path)
        scratch = tmp_path / str(generation)
        scratch.mkdir()
        vae.fit(corpus, seed=generation, scratch=scratch)
        losses.append(vae.measure(test).facts["test_loss"])
        if reference is None:
            reference = vae
            vae.look_at_real(tmp_path)
        samples = vae.sample(imagery.prompts(corpus), seed=generation, scratch=scratch).rows
        measured = reference.examine(samples, samples.take(np.arange(8)), samples, real=tmp_path, first=None)
        spreads.append(measured.facts["latent_spread"])
        corpus = samples
    assert spreads[0] > spreads[1] > spreads[2]
    assert spreads[2] < 0.8 * spreads[0]
    assert losses[0] < losses[1] < losses[2]
