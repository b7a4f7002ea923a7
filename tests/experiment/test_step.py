"""One generation of one lineage, with verbs that only say what they are given."""

from collections.abc import Sequence

import pytest

from collapse_cli.config.policies import Policy
from collapse_cli.experiment.loop import Lineage, step_together


class Saying:
    """Models, rows and measurements are words: what each was made of."""

    def sample(self, model: str, corpus: str, generation: int) -> str:
        return f"s{generation}({model}|{corpus})"

    def take(self, pool: Sequence[str | None], generation: int) -> str:
        (own,) = pool
        assert own is not None
        return own

    def mix(self, samples: Sequence[str], generation: int) -> str:
        return f"x{generation}({','.join(word.partition('(')[0] for word in samples)})"

    def fit(self, start: str | None, corpus: str, generation: int) -> str:
        return f"m{generation}<{start.partition('<')[0] if start else 'base'},{corpus}>"

    def measure(self, model: str, corpus: str, first: str | None, generation: int) -> str:
        return f"e{generation}[{model.partition('<')[0]}~{first.partition('[')[0] if first else 'none'}]"


def lineage(policy: str, init: str = "base", generations: int = 3) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """What each step returned, and the samples that the lineage had after it."""
    line = Lineage[str, str, str](Policy.parse(policy), init, "real")
    made, samples = [], []
    for generation in range(generations):
        made += step_together([line], [Saying()], generation)
        samples.append([word.partition("(")[0] for word in line.samples])
    return made, samples


def test_each_generation_is_fitted_on_what_the_one_before_made() -> None:
    made, samples = lineage("keep-10")
    assert made == [
        ("m0<base,real>", "e0[m0~none]"),
        ("m1<base,x1(s1)>", "e1[m1~e0]"),
        ("m2<base,x2(s2)>", "e2[m2~e0]"),
    ]
    assert samples == [[], ["s1"], ["s2"]]


def test_rows_of_all_generations_accumulate() -> None:
    made, samples = lineage("accumulate")
    assert [model for model, _ in made] == ["m0<base,real>", "m1<base,x1(s1)>", "m2<base,x2(s1,s2)>"]
    assert samples == [[], ["s1"], ["s1", "s2"]]


def test_a_policy_without_synthetic_rows_samples_nothing() -> None:
    made, samples = lineage("keep-100")
    assert [model for model, _ in made] == ["m0<base,real>", "m1<base,x1()>", "m2<base,x2()>"]
    assert samples == [[], [], []]


@pytest.mark.parametrize(("init", "starts"), [("base", "base base"), ("gen0", "m0 m0"), ("previous", "m0 m1")])
def test_what_a_model_starts_from(init: str, starts: str) -> None:
    made, _ = lineage("keep-0", init)
    assert [model.partition("<")[2].partition(",")[0] for model, _ in made] == ["base", *starts.split()]


def test_a_model_continues_the_corpus_that_it_was_fitted_on_where_it_is_asked_to() -> None:
    line, given = Lineage[str, str, str](Policy.parse("keep-0"), "base", "real"), []

    class Hearing(Saying):
        def sample(self, model: str, corpus: str, generation: int) -> str:
            given.append((model.partition("<")[0], corpus))
            return super().sample(model, corpus, generation)

    for generation in range(3):
        step_together([line], [Hearing()], generation)
    assert given == [("m0", "real"), ("m1", "x1(s1)")]
