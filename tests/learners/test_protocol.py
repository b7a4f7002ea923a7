"""Each learner is a whole one. mypy reads this file: what a class lacks, or does otherwise, is an error of types here."""

from typing import Any

import pytest

from collapse_cli.families import FAMILIES
from collapse_cli.learners import LEARNERS, Comparable, Divisible, Family, Learner, Mixing, Sizable, learner_class
from collapse_cli.learners.gaussian import Gaussian
from collapse_cli.learners.gmm import GaussianMixture
from collapse_cli.learners.lm import LanguageModel
from collapse_cli.learners.mlp import Mlp
from collapse_cli.learners.ngram import NGram
from collapse_cli.learners.projections import Projections
from collapse_cli.learners.ridge import Ridge
from collapse_cli.learners.settings import Part, Settings
from collapse_cli.learners.vae import Vae

WHOLE: tuple[type[Learner], ...] = (LanguageModel, NGram, Gaussian, GaussianMixture, Vae, Ridge, Projections, Mlp)
SIZABLE: tuple[type[Sizable], ...] = (LanguageModel, Mlp)
COMPARABLE: tuple[type[Comparable], ...] = (LanguageModel, NGram)
DIVISIBLE: tuple[type[Divisible], ...] = (LanguageModel,)
MIXING: tuple[type[Mixing], ...] = (Ridge, Projections)


def test_all_learners_are_shown_to_mypy() -> None:
    assert {learner_class(name) for name in LEARNERS} == set(WHOLE)


def test_families_with_a_grid_have_what_a_mixture_asks_for() -> None:
    """`sizable_class` and `mixing` trust what the family's description says."""
    by_stages = {learner_class(one.name) for one in FAMILIES.values() if one.grid and not one.grid.in_memory}
    in_memory = {learner_class(one.name) for one in FAMILIES.values() if one.grid and one.grid.in_memory}
    assert (by_stages, in_memory) == (set(SIZABLE), set(MIXING))


def test_models_of_text_can_be_held_against_those_of_other_lineages() -> None:
    """`stages.between` trusts it."""
    assert {learner_class(one.name) for one in FAMILIES.values() if one.text} == set(COMPARABLE)


def test_what_can_be_divided_is_told_by_its_methods() -> None:
    """`stages.shards` asks the class."""
    assert {learner for learner in WHOLE if issubclass(learner, Divisible)} == set(DIVISIBLE)


def test_families_whose_generations_share_a_stage_are_a_few_arrays() -> None:
    assert all(issubclass(learner, Family) for learner in WHOLE if learner.block > 1)


def test_what_is_not_in_a_stages_key_cannot_be_read_by_its_learner() -> None:
    class Some(Settings):
        size = Part(int)
        name = Part(str)

    some: Any = Some({"size": 3, "other": 1})
    assert some.size == 3
    with pytest.raises(AttributeError, match="the key of this stage has no 'name' in it"):
        _ = some.name
    with pytest.raises(ValueError, match="valid integer"):
        _ = Some({"size": "large"}).size
