"""A run in lines and cells, for HTML and Markdown alike: at a glance, published numbers, time, provenance."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from collapse_cli.config import not_as_published
from collapse_cli.config.families import DRAWN
from collapse_cli.families import INSTRUMENTS, SHARE, headline, headline_measure
from collapse_cli.findings.diagnosis import Diagnosis, diagnose_run, said_of
from collapse_cli.findings.expectations import judge, theory_at
from collapse_cli.findings.forecast import vocabularies_of
from collapse_cli.findings.foreign_text import given_by_sources, sources_said
from collapse_cli.metrics.numbers import duration, factors, spread, value
from collapse_cli.records.fields import finite, strings, table
from collapse_cli.records.row import Row
from collapse_cli.report.figures import bounded, perplexities
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.text import LONGEST, one_line
from collapse_cli.where import Arm

SHARES = {measure.name for measure in INSTRUMENTS if measure.unit == SHARE}
NO_INTERVAL = "one seed: no interval"


@dataclass(frozen=True)
class Published:
    """A published number beside ours."""

    run: Run
    what: str
    where: str
    published: str
    ours: str
    verdict: str
    source: str
    theory: bool = False

    @property
    def said(self) -> str:
        """The verdict for people."""
        return self.verdict if self.verdict in ("inside", "outside") else f"not run: {self.verdict}"


def diagnoses(runs: Sequence[Run]) -> list[Diagnosis]:
    """What `collapse_cli.findings.diagnosis` makes of each run."""
    return [diagnose_run(run.rows, run.config, lambda policy: one_line(policy, 60), plain=True) for run in runs]


def glance_table(series: Sequence[Series], diagnosed: Sequence[Diagnosis]) -> tuple[list[str], list[list[str]]]:
    """A line per policy: where it began, where it is, and what the instruments say at its last generation."""
    names = ["policy", "generations", "first perplexity", "last", "change", "verdict"]
    fields = {
        "tail_change": "rare tokens, nats",
        "low_share": "pile-up",
        "high_share": "long tail",
        "distinct_2": "distinct 2-grams",
        "rep_4": "repeated 4-grams",
    }
    shown = {name: title for name, title in fields.items() if any(line.by_seed(name) for line in series)}
    rows = []
    for line in series:
        means = perplexities(line)
        policy = next((there for there in diagnosed[line.run_index].arms if there.arm == line.arm), None)
        last, change, verdict = line.generations[-1], "–", "–"
        if policy is not None:
            last = policy.last
            mean, ends = factors(policy.ratio)
            change = f"{mean} ({ends})" if ends else mean
            verdict = said_of(policy)
        row = [
            line.label,
            f"0–{last}" if last else "0",
            spread(means.get(0)),
            spread(means.get(last)),
            change,
            verdict,
        ]
        row += [spread(line.means(name).get(last), share=name in SHARES) for name in shown]
        rows.append(row)
    return [*names, *shown.values()], rows


def family_glance(series: Sequence[Series]) -> tuple[list[str], list[list[str]]]:
    """A line per policy of another family: its headline measure at generation 0 and at the last one, and theory's word."""
    measure = headline(series[0].run.learner, "generational")
    rows, known = [], False
    for line in series:
        means = bounded(line, headline_measure(line.run.learner, "generational"))
        last = max(means, default=line.generations[-1])
        first, end = means.get(0), means.get(last)
        theory = theory_at(line.run.config, measure.name, line.arm, last)
        known = known or theory is not None
        change = "–"
        if first is not None and end is not None and last and first.mean > 0 and end.mean > 0:
            change = f"×{value(end.mean / first.mean)}"
        row = [line.label, f"0–{last:,}" if last else "0", spread(first), spread(end), change]
        rows.append([*row, value(theory)])
    names = ["policy", "generations", f"{measure.title}: first", "last", "change", "theory, last"]
    return (names, rows) if known else (names[:-1], [row[:-1] for row in rows])


def left_out(series: Sequence[Series]) -> list[str]:
    """Which seeds means are over, a line for each policy of which some are not measured as far as the others."""
    remarks = []
    for line in series:
        if others := [seed for seed in line.seeds if seed not in line.counted]:
            over, rest = (f"seed{'s' if len(some) > 1 else ''} {_some(some)}" for some in (line.counted, others))
            remarks.append(f"{line.label}: means are over {over}; left out, for not measured as far: {rest}")
    return remarks


def warned(runs: Sequence[Run]) -> list[tuple[Run, str, str, int]]:
    """Guard rails of all rows: (run, the worst wording, where, in how many rows); alike but for numbers is one."""
    rows_of: dict[tuple[int, str], list[tuple[str, Row]]] = {}
    for index, run in enumerate(runs):
        for row in run.rows:
            for text in row.warnings:
                pattern = re.sub(r"\d+(\.\d+)?", "#", text[:500])
                rows_of.setdefault((index, pattern), []).append((text, row))
    kinds = []
    for (index, _), rows in rows_of.items():
        there: dict[Arm, set[int]] = {}
        for _, held in rows:
            there.setdefault(held.where.arm, set()).add(held.where.generation)
        where = "; ".join(f"{one_line(arm)}, {_generations(sorted(steps))}" for arm, steps in there.items())
        kinds.append((runs[index], max((text for text, _ in rows), key=_first_number), where, len(rows)))
    return kinds


def most_frequent(rows: Sequence[Row]) -> list[tuple[str, float, float | None]]:
    """8-grams of a generation's seeds together: text, count, in how many samples; the ten most frequent."""
    phrases: dict[str, tuple[float, float | None]] = {}
    for row in rows:
        for phrase in row.phrases:
            text = phrase.text[:LONGEST]
            count, held = phrases.get(text, (0.0, 0.0))
            both = held + phrase.samples if held is not None and phrase.samples is not None else None
            phrases[text] = (count + phrase.count, both)
    ranked = sorted(phrases.items(), key=lambda item: -item[1][0])
    return [(text, count, held) for text, (count, held) in ranked[:10]]


def published_table(runs: Sequence[Run]) -> list[Published]:
    """`config.expect` beside what was measured, as `collapse_cli.findings.expectations` judges it."""
    entries = []
    for run in runs:
        for entry in judge(run.rows, run.config):
            theory = entry.kind == "theory"
            limits = (
                f"{value(entry.value, 4)} {entry.limits}{' (theory)' if theory else ''}"
                if entry.value is not None
                else "–"
            )
            mine = "–" if entry.ours is None else spread(entry.ours)
            if entry.ours is not None and entry.ours.low is None:
                mine += f", {NO_INTERVAL}"
            source = "; ".join(part for part in (entry.source, entry.note) if part)
            verdict = entry.why if entry.verdict == "not run" else entry.verdict
            entries.append(Published(run, entry.what, entry.where, limits, mine, verdict, source, theory))
    return entries


def other_experiments(runs: Sequence[Run]) -> list[str]:
    """Which runs are not the experiment whose published values they hold, and in what."""
    differences = [(run, not_as_published(run.config)) for run in runs]
    return [text if len(runs) == 1 else f"{run.name}: {text}" for run, text in differences if text]


def stages(run: Run) -> tuple[list[str], list[list[str]]]:
    """Seconds and tokens per second by what a stage does, of what this run computed itself.

    Stages are computed side by side: the summed time is what all took together, the wall time what passed while any was at work.
    """
    made: dict[str, list[Mapping[str, Any]]] = {}
    cached: dict[str, int] = {}
    spans: dict[str, list[tuple[float, float]]] = {}
    for event in run.events:
        kind = one_line(event.get("work") or event.get("kind", "?"), 30)  # one kind of stage may do several works
        if event.get("event") == "finished" and finite(event.get("seconds")) is not None:
            made.setdefault(kind, []).append(event)
            if (end := _moment(event.get("time"))) is not None:
                spans.setdefault(kind, []).append((end - (finite(event["seconds"]) or 0.0), end))
        elif event.get("event") == "cached":
            cached[kind] = cached.get(kind, 0) + 1
    rows = []
    total = 0.0
    for kind in dict.fromkeys([*made, *cached]):
        events = made.get(kind, [])
        seconds = math.fsum(finite(event["seconds"]) or 0.0 for event in events)
        total += seconds
        timed = [event for event in events if finite(event.get("tokens"))]
        tokens = math.fsum(finite(event["tokens"]) or 0.0 for event in timed)
        speed = tokens / max(math.fsum(finite(event["seconds"]) or 0.0 for event in timed), 1e-9)
        memory = max((finite(event.get("peak_memory_mb")) or 0.0 for event in events), default=0.0)
        rows.append(
            [
                kind,
                str(len(events)),
                str(cached.get(kind, 0)),
                duration(seconds, fine=True),
                duration(_covered(spans[kind]), fine=True) if kind in spans else "–",
                f"{tokens:,.0f}" if timed else "–",
                f"{speed:,.0f}" if timed else "–",
                f"{memory:,.0f} MB" if memory else "–",
            ]
        )
    if rows:
        wall = duration(_covered([span for there in spans.values() for span in there]), fine=True) if spans else "–"
        counts = (str(sum(int(row[i]) for row in rows)) for i in (1, 2))
        rows.append(["all", *counts, duration(total, fine=True), wall, "", "", ""])
    names = ["stage", "computed", "found in the store", "summed time", "wall time", "tokens", "tokens/s", "peak memory"]
    if not run.text and all(row[5] in ("", "–") for row in rows):
        names, rows = names[:5] + names[7:], [row[:5] + row[7:] for row in rows]
    return names, rows


def provenance(run: Run) -> dict[str, str]:
    """What the numbers come from: command, code, libraries, machine, hashes. Not yet escaped."""
    record = run.record
    git, hardware, data, model = (
        table(part)
        for part in (record.get("git"), record.get("hardware"), run.config.get("data"), run.config.get("model"))
    )
    command = record.get("command")
    changed = ", changed since" if git.get("dirty") else ""
    machine = [
        f"{hardware.get('system', '')} {hardware.get('machine', '')}".strip(),
        *([one_line(hardware["processor"])] if isinstance(hardware.get("processor"), str) else []),
        *([f"with {' and '.join(vectors)}"] if (vectors := strings(hardware.get("vectors"))) else []),
        f"{hardware.get('cores', '?')} cores, {hardware.get('threads', '?')} threads",
        f"{hardware.get('memory_gib', '?')} GiB",
        *(map(str, hardware["gpus"]) if isinstance(hardware.get("gpus"), list) else []),
    ]
    protocols = {
        ", ".join(f"{name} {setting}" for name, setting in row.protocol.items())
        for row in run.rows
        if isinstance(row.fields.get("protocol"), dict)
    }
    facts = {
        "command": " ".join(map(str, command)) if isinstance(command, list) else "not recorded",
        "begun, last written": f"{record.get('created', '?')}, {record.get('updated', '?')}",
        "code": f"{git.get('commit', '?')}{changed}" if git else "an installed package, no checkout",
        "versions": ", ".join(f"{name} {version}" for name, version in table(record.get("versions")).items()),
        "hardware": ", ".join(machine) if hardware else "not recorded",
        "perplexity protocol": "; ".join(sorted(protocols)) or "not recorded",
        "SHA-256 of the text": str(data.get("sha256") or "not recorded"),
        "SHA-256 of the model begun with": str(model.get("sha256") or "from scratch: no weights"),
        "SHA-256 of the tokenizer": str(model.get("tokenizer_sha256") or "trained in the run"),
    }
    if others := sources_said(given_by_sources(run.rows)):
        facts["text of other models"] = " ".join(others)
    if run.family.begins_with_a_model:
        return facts
    drawn = str(data.get("source")) in DRAWN
    facts["SHA-256 of the data"] = str(data.get("sha256") or ("drawn anew for each seed" if drawn else "not recorded"))
    language = {name for name in facts if name.startswith("SHA-256 of the") and name != "SHA-256 of the data"}
    return {
        name: text
        for name, text in facts.items()
        if name not in language and (run.text or name != "perplexity protocol")
    }


def facts(run: Run) -> dict[str, str]:
    """A run in a few words, not yet escaped."""
    model, data = table(run.config.get("model")), table(run.config.get("data"))
    scratch = table(model.get("config")).get("model_type")
    seeds = sorted({row.where.seed for row in run.rows})
    seeds_said = _some(seeds)
    known = str(model.get("source") or (f"{scratch} from scratch" if scratch else "unknown"))
    return {
        "model": known if run.family.begins_with_a_model else run.learner,
        "data": str(data.get("source") or "unknown"),
        "seeds": f"{seeds_said}; intervals are 95% over seeds"
        if len(seeds) > 1
        else f"{seeds_said or 'none'} ({NO_INTERVAL})",
        "cells × seeds"
        if run.mixture
        else "models": f"{len(run.rows):,} of {max(run.planned, len(run.rows)):,} measured",
    }


def floors(runs: Sequence[Run]) -> dict[int, float]:
    """By run, the entropy rate of its data where that is known, in nats per token."""
    rates_of = {}
    for index, run in enumerate(runs):
        rates = [rate for row in run.rows if (rate := row.measure("entropy_rate")) is not None]
        if rates:
            rates_of[index] = rates[0]
    return rates_of


def ceilings(runs: Sequence[Run]) -> set[int]:
    """How many tokens the models choose among, where a configuration says so: guessing evenly has this perplexity."""
    sizes = [size for run in runs if run.text for size in vocabularies_of(run.config).values()]
    return {size for size in sizes if size is not None}


def floored(runs: Sequence[Run]) -> list[str]:
    """Of runs of n-grams, what their perplexity and KL hang on beside the text."""
    return [
        f"{run.name}: a token that the model gives no probability counts as {floor:g} ({run.learner}.{run.family.floor}); perplexity, losses "
        "and KL depend on that number, the share without probability does not"
        for run in runs
        if run.family.floor and (floor := finite(table(run.config.get(run.learner)).get(run.family.floor))) is not None
    ]


def _moment(time: object) -> float | None:
    """Seconds of a time in `events.jsonl`; None for what is no time."""
    try:
        return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else None
    except ValueError:
        return None


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """How much time lies within any of the spans."""
    total, until = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _some(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:10])) + (", …" if len(seeds) > 10 else "")


def _first_number(text: str) -> float:
    there = re.search(r"\d+(\.\d+)?", text[:500])
    return float(there.group()) if there else 0.0


def _generations(numbers: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    spans = ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)
    return f"generation{'s' if len(numbers) > 1 else ''} {spans}"
