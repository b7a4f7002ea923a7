"""Where a run is heading, and how much real data would stop it. Reads run folders only; docs/forecast.md says how."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collapse_cli import families
from collapse_cli.config.policies import percent_kept
from collapse_cli.errors import ConfigError
from collapse_cli.findings.arms import lineages_of, trees_of
from collapse_cli.findings.forecast import share as shares
from collapse_cli.findings.forecast.fit import HIGHEST, LawFit, fit_all, mixture, paths, spread_at, weights
from collapse_cli.findings.forecast.history import HORIZON, LEAST_GENERATIONS, LEAST_STEPS, History, collect
from collapse_cli.findings.forecast.laws import Array
from collapse_cli.findings.forecast.next_command import continued, name_given, seen_from_here
from collapse_cli.findings.forecast.resample import bootstrap
from collapse_cli.findings.forecast.sentences import sentences, shares_of
from collapse_cli.metrics import floored, perplexity
from collapse_cli.metrics.intervals import NOISE, interval
from collapse_cli.records.row import Row, by_arm
from collapse_cli.records.rundir import RunFolder
from collapse_cli.where import Arm

__all__ = ["forecast", "forecast_rows", "sentences", "shares_of", "vocabularies_of", "vocabulary_of"]

GENERATIONS = (10, 20, 50)
FACTORS = (1.1, 1.5, 2.0)
DRAWS, REPLICATES = 2000, 500
LEVEL = 0.9
SEED = 20261120


def forecast(folder: RunFolder, *, factor: float = 1.5, generation: int | None = None) -> dict[str, Any]:
    """The forecast of a run: for each policy its growth laws and what they say of later generations; then the real data.

    Args:
        factor: how many times generation 0's perplexity is still near, above 1.
        generation: the generation that is to stay near; by default the last one that all keep-P policies have reached.

    Returns:
        A JSON tree: `run`, `policies` (as `forecast_rows`), `share` (of several lineages `shares`, one each), `notes`. The same folder gives the same numbers.

    Raises:
        ConfigError: when there is no such run, nothing was measured in it, or an argument is out of range.
    """
    record = folder.record()
    _check_kind(folder.name, folder.tree())
    rows = folder.rows()
    if not rows and folder.damaged():
        raise ConfigError(f"all lines of {folder.place('metrics.jsonl')} are damaged; give the run's command again")
    if not rows:
        raise ConfigError(
            f"the run {folder.name!r} has no rows in metrics.jsonl; let it measure some generations first"
        )
    outcome = forecast_rows(rows, factor=factor, generation=generation, vocabulary=vocabularies_of(record["config"]))
    command = record.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    if name_given(words) == folder.name:  # else it is a variant, or was renamed: the command would run something else
        words = seen_from_here(words, folder.runs)
        for share in shares_of(outcome):
            for option in share.get("next", []):
                option["command"] = continued(words, option, [int(s) for s in share["seeds"]])
    notes = outcome["notes"]
    if record["status"] != "success":
        notes = [f"the run is not finished (status: {record['status']}); this is a forecast from what there is", *notes]
    return {"run": folder.name, "status": record["status"]} | outcome | {"notes": notes}


def _check_kind(name: str, config: Mapping[str, Any]) -> None:
    """Whether a run has a perplexity by generation.

    Raises:
        ConfigError: where it is a mixture, or of a learner of numbers.
    """
    learner, kind = str(config.get("learner", families.DEFAULT)), config.get("kind", "generational")
    if not families.of(learner).text or kind != "generational":
        raise ConfigError(
            f"the run {name!r} ({learner}, {kind}) has no perplexity by generation to forecast; what theory says of it "
            "stands in its report and in `collapse theory`"
        )


def vocabulary_of(config: Mapping[str, Any]) -> int | None:
    """Tokens that a language model chooses among, where its configuration says so: of those made from scratch.

    Of a pretrained model `model.vocab_size` has no meaning, and counting models put no bound on their perplexity.
    """
    model, data = config.get("model"), config.get("data")
    family = families.of(str(config.get("learner", families.DEFAULT)))
    if not family.begins_with_a_model or not isinstance(model, Mapping) or not isinstance(data, Mapping):
        return None
    zipf, made = data.get("zipf"), model.get("config")
    if not (isinstance(made, Mapping) and made) or model.get("tokenizer", "") not in ("", "bpe", "words"):
        return None
    if data.get("source") == "zipf":
        words = zipf.get("vocabulary") if isinstance(zipf, Mapping) else None
        return words + 1 if isinstance(words, int) else None  # and the end of a text
    sizes = (model.get("vocab_size"), made.get("vocab_size"))
    known = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 1]
    return max(known, default=None)


def vocabularies_of(config: Mapping[str, Any]) -> dict[str, int | None]:
    """`vocabulary_of` each lineage, whose models may have tokenizers of their own; "" of an experiment that has one."""
    return {lineage: vocabulary_of(tree) for lineage, tree in trees_of(config).items()}


def forecast_rows(
    rows: Sequence[Row],
    *,
    factor: float = 1.5,
    generation: int | None = None,
    vocabulary: int | Mapping[str, int | None] | None = None,
) -> dict[str, Any]:
    """As `forecast`, from rows of `metrics.jsonl`: their loss alone is looked at.

    Args:
        vocabulary: tokens that the model chooses among. Guessing evenly has this perplexity; no more is forecast, unless
            more was measured. Of several lineages by their names.
    """
    if not (math.isfinite(factor) and factor > 1):
        raise ConfigError(f"--factor {factor:g}: give a number above 1, such as 1.5")
    if generation is not None and not 1 <= generation <= HORIZON:
        raise ConfigError(f"--generation {generation}: give a generation from 1 to {HORIZON}")
    measured, notes = collect(rows)
    floors = {floor for row in rows if isinstance(floor := row.protocol.get("floor"), float)}
    for floor in sorted(floors):
        notes.append(f"{floored(floor)}; the share of tokens without probability (unseen_share) is not forecast")
    policies: list[dict[str, Any]] = []
    models: dict[Arm, list[LawFit]] = {}
    arms = by_arm(rows)

    def most(lineage: str) -> int | None:
        return vocabulary.get(lineage) if isinstance(vocabulary, Mapping) else vocabulary

    for arm, own in arms.items():
        if arm not in measured:
            policies.append({**arm.record(), "status": "not enough data", "why": _lacking(own)})
            continue
        policies.append(_arm(arm, measured[arm], most(arm.lineage), models))
    made = []
    for lineage in lineages_of(arms) or [""]:
        own_series = {arm: series for arm, series in measured.items() if arm.lineage == lineage}
        share = _share(own_series, models, factor, generation)
        for ratio_at in share.get("ratios", []):
            ratio_at["ceiling"] = None
            if (ceiling := most(lineage)) is not None:
                series = own_series[Arm(ratio_at["policy"], lineage)]
                ratio_at["ceiling"] = math.exp(_highest(series, ceiling) - series.first())
        made.append({"lineage": lineage, **share} if lineage else share)
    return {
        "policies": policies,
        **({"shares": made} if lineages_of(arms) else {"share": made[0]}),
        "rules": {"least_generations": LEAST_GENERATIONS, "least_steps": LEAST_STEPS, "horizon": HORIZON},
        "notes": notes,
    }


def _lacking(rows: Sequence[Row]) -> str:
    """What an arm without a series has too little of."""
    measured = {row.where.generation for row in rows if row.nll is not None}
    if measured != {0}:
        return "no seed has both generation 0 and a later one"
    least = f"{LEAST_GENERATIONS} generations, or {LEAST_STEPS + 1} of a single seed"
    return f"only generation 0 is measured; a forecast needs at least {least}"


def _arm(arm: Arm, series: History, vocabulary: int | None, models: dict[Arm, list[LawFit]]) -> dict[str, Any]:
    """What is said of a policy of a lineage; its fits are put into `models`, where there is enough data for them."""
    generations = series.generations()
    steps = series.steps
    record: dict[str, Any] = {
        **arm.record(),
        "seeds": list(series.values),
        "farthest_seeds": series.farthest,
        "generations": generations,
        "steps": steps,
        "measured": [_measured(series, g) for g in generations if not math.isnan(series.mean(g))],
    }
    if not series.enough:
        why = (
            f"{len(generations)} generations and {steps} steps between them over all seeds were measured; "
            f"{LEAST_GENERATIONS} generations and {LEAST_STEPS} steps are needed"
        )
        return record | {"status": "not enough data", "why": why}
    rng = np.random.Generator(np.random.Philox(SEED))
    fits = models[arm] = fit_all(series)
    names = weights([fit.aicc for fit in fits])
    mixed = mixture(fits)
    best = int(names.argmax())
    known = series.mean(series.last) - series.first()
    highest = _highest(series, vocabulary)
    horizon = HORIZON - series.last if series.last < HORIZON else 1
    made = paths(series, fits, mixed, horizon, DRAWS, rng, highest=highest)
    notes = []
    if len(series.farthest) < len(series.values):
        notes.append(f"starts from the {len(series.farthest)} of {len(series.values)} seeds with the most generations")
    if len(set(generations)) < series.last + 1 or any(len(by) < len(generations) for by in series.values.values()):
        notes.append("some seeds lack generations; the steps across gaps count as longer ones")
    if all(value == by[0] for by in series.values.values() for value in by.values()):
        notes.append("the perplexity never changed; was the model trained at all?")
    if _at_edge(fits[best]):
        notes.append(f"the {fits[best].law.shape} of the best law is at the edge of what is tried")
    return record | {
        "status": "ok",
        "ceiling": vocabulary,
        "change": known,
        "laws": [_law(fit, float(n), float(m)) for fit, n, m in zip(fits, names, mixed, strict=True)],
        "best": fits[best].law.name,
        "parameters": _estimates(series, fits[best], rng),
        "bootstrap": {
            "seeds": "a t interval of generation 0"
            if len(series.values) > 1
            else "one: its generation 0 does not vary",
            "steps": "made anew from law and noise",
            "rows": "test rows by decile" if series.errors else "not resampled: their errors are not in this run",
            "replicates": REPLICATES,
        },
        "expected": [_expected(series, made, g) for g in GENERATIONS],
        "times": [_time(series, made, factor, highest) for factor in FACTORS],
        "notes": notes,
    }


def _highest(series: History, vocabulary: int | None) -> float:
    """Log-perplexity at which forecasts end: that of guessing evenly, or the largest measured, if that is larger."""
    if vocabulary is None:
        return HIGHEST
    return max(math.log(vocabulary), *(value for by in series.values.values() for value in by.values()))


def _measured(series: History, generation: int) -> dict[str, Any]:
    value = series.mean(generation)
    return {"generation": generation, "perplexity": perplexity(value), "log_perplexity": value}


def _law(fit: LawFit, weight: float, mixed: float) -> dict[str, Any]:
    return {
        "law": fit.law.name,
        "parameters": fit.parameters,
        "aicc": fit.aicc if math.isfinite(fit.aicc) else None,
        "weight": weight,
        "forecast_weight": mixed,
        "step_noise": fit.noise,
        "b": float(fit.slope[fit.best]),
        "shape": float(fit.shape[fit.best]) if fit.law.shape else None,
    }


def _at_edge(fit: LawFit) -> bool:
    ends = np.log(fit.shape[[0, -1]])
    return fit.law.sloped and bool(fit.law.shape) and bool(np.abs(ends - math.log(fit.shape[fit.best])).min() < 1e-4)


def _estimates(series: History, fit: LawFit, rng: np.random.Generator) -> dict[str, dict[str, float | None]]:
    first = interval([by[0] for by in series.values.values()], LEVEL)
    estimates = {"a": {"value": first.mean, "low90": first.low, "high90": first.high}}
    drawn = bootstrap(series, fit, REPLICATES, rng)
    values = {"b": float(fit.slope[fit.best]), fit.law.shape: float(fit.shape[fit.best])}
    for name, ends in drawn.items():
        low, high = (float(q) for q in np.quantile(ends, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        estimates[name] = {"value": values[name], "low90": low, "high90": high}
    return estimates


def _expected(series: History, made: Array, generation: int) -> dict[str, Any]:
    """Perplexity at a generation: as measured, or the median of the paths with 50% and 90% intervals."""
    if generation <= series.last:
        value = series.mean(generation)
        known = None if math.isnan(value) else value
        return {
            "generation": generation,
            "measured": True,
            "log_perplexity": known,
            "perplexity": None if known is None else perplexity(known),
        }
    levels = np.quantile(made[:, generation - series.last - 1], [0.05, 0.25, 0.5, 0.75, 0.95])
    names = ("low90", "low50", "", "high50", "high90")
    record: dict[str, Any] = {"generation": generation, "measured": False}
    for name, level in zip(names, levels, strict=True):
        end = f"_{name}" if name else ""
        record |= {f"perplexity{end}": perplexity(float(level)), f"log_perplexity{end}": float(level)}
    return record | {"times_beyond": generation / series.last}


def _time(series: History, made: Array, factor: float, highest: float) -> dict[str, Any]:
    """The generation whose perplexity reaches `factor` times generation 0's: as measured, or from the paths.

    From the paths: `low90`, `generation`, `high90` are the first generations at which the chance of being there is 5%, 50%
    and 95%, null where that is not within `HORIZON` generations; `chance` is that at the last of these. Where paths end
    below it, at guessing evenly, all of these are null, and `beyond` is true: nothing is known of it.
    """
    level = series.first() + math.log(factor)
    for generation in series.generations():
        if generation > 0 and series.mean(generation) >= level:
            return {"factor": factor, "measured": True, "generation": generation, "chance": 1.0}
    if level > highest:
        unknown = dict.fromkeys(("generation", "low90", "high90", "chance"))
        return {"factor": factor, "measured": False, "beyond": True} | unknown
    chance = (made >= level).mean(0)
    record: dict[str, Any] = {"factor": factor, "measured": False}
    for name, least in (("generation", 0.5), ("low90", 0.05), ("high90", 0.95)):
        record[name] = int(series.last + 1 + (chance >= least).argmax()) if (chance >= least).any() else None
    return record | {"chance": float(chance[-1])}


def _share(
    measured: Mapping[Arm, History], models: Mapping[Arm, Sequence[LawFit]], factor: float, generation: int | None
) -> dict[str, Any]:
    """The smallest share of real data that keeps a generation within a factor of generation 0, of one lineage."""
    keeps = {percent: arm for arm in measured if (percent := percent_kept(arm.policy)) is not None}
    assert len({arm.lineage for arm in measured}) < 2, "shares are of one lineage"
    record: dict[str, Any] = {"factor": factor, "policies": [keeps[p].policy for p in sorted(keeps)]}
    if len(keeps) < 2:
        why = f"at least two keep-P policies with generations after 0 are needed; this run has {len(keeps)}"
        return record | {"status": "not enough data", "why": why, "generation": generation}
    series = {percent: measured[keeps[percent]] for percent in sorted(keeps)}
    reached = min(history.last for history in series.values())
    target = reached if generation is None else generation
    record |= {"generation": target, "measured": target <= reached}
    rng = np.random.Generator(np.random.Philox(SEED + 1))
    lacking = [keeps[p] for p in series if keeps[p] not in models]
    known = {
        percent: {seed: by[target] - by[0] for seed, by in history.values.items() if target in by}
        for percent, history in series.items()
    }
    ratios = shares.from_seeds(known, DRAWS, rng) if target <= reached else None
    if ratios is None:
        if lacking:
            of = "one seed" if target <= reached else "a generation that was not measured"
            why = f"for {of} the forecast of each policy is needed, and {lacking[0].policy} has too few generations"
            return record | {"status": "not enough data", "why": why}
        ratios = _from_fits(series, {p: models[keeps[p]] for p in series}, known, target, rng)
    record["seeds"] = sorted(set.intersection(*(set(history.values) for history in series.values())))
    record["ratios"] = [
        {
            "policy": keeps[percent].policy,
            "ratio": perplexity(float(ratios.middle[i])),
            "low90": perplexity(float(np.quantile(ratios.draws[:, i], 0.05))),
            "high90": perplexity(float(np.quantile(ratios.draws[:, i], 0.95))),
            "measured": bool(known[percent]),
        }
        for i, percent in enumerate(series)
    ]
    return record | {"status": "ok"} | shares.smallest_share(ratios, factor, rng)


def _from_fits(
    series: Mapping[float, History],
    models: Mapping[float, Sequence[LawFit]],
    known: Mapping[float, Mapping[int, float]],
    target: int,
    rng: np.random.Generator,
) -> shares.Ratios:
    """R where one seed is all there is, from the noise of its steps, or where the generation lies ahead, from the paths.

    Both with the variance between seeds in it, since what is asked is how much real data the recipe needs, and not this seed.
    """
    columns, middle, noises = [], [], []
    for percent, history in series.items():
        fits = models[percent]
        mixed = mixture(fits)
        off = spread_at(fits, mixed, target, DRAWS, rng)
        count = len(known[percent]) or len(history.farthest)
        if known[percent]:
            at = float(np.mean(list(known[percent].values())))
            drawn = at + off / math.sqrt(count) + shares.between_seeds(list(known[percent].values()), DRAWS, rng)
        else:
            made = paths(history, fits, mixed, target - history.last, DRAWS, rng)
            drawn = rng.permutation(made[:, -1]) - history.first()
            at = float(np.median(drawn))
            seen = [history.values[seed][history.last] - history.values[seed][0] for seed in history.farthest]
            drawn = drawn + shares.between_seeds(seen, DRAWS, rng)
        columns.append(drawn)
        middle.append(at)
        noises.append(math.hypot(float(np.subtract(*np.quantile(off, [0.84, 0.16])) / 2), NOISE if count == 1 else 0.0))
    seeds = min(len(history.values) for history in series.values())
    percents = np.array(list(series))
    return shares.Ratios(percents, np.stack(columns, axis=1), np.array(middle), float(np.median(noises)), seeds)
