"""What samples say of the invented world: which breeds are crowded out, and which facts stay true, by how frequent they are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from collapse_cli.families import INSTRUMENTS
from collapse_cli.findings.known_world import breed_shares, mentions, world_left, world_said
from collapse_cli.metrics.numbers import percent
from collapse_cli.report.contents import Contents
from collapse_cli.report.figures import Figure, curve, layout_of, level_line, rounded
from collapse_cli.report.html_elements import how_to_read, of_all
from collapse_cli.report.loading import Series
from collapse_cli.report.text import escaped, label

LEVELS = 4  # lines of what is expected, where runs differ in it
NAMED = 5  # breeds that have a colour of their own
UNTIL = (12, 25, 50)  # ranks at which groups of the others end
BANDS = ("most frequent fifth", "second fifth", "third fifth", "fourth fifth", "rarest fifth")
TRUTH = "truth"


def world(contents: Contents) -> None:
    """The picture of the paper, and the facts."""
    lines = [line for line in contents.texts if any("breed_counts" in row.fields for row in line.rows)]
    if (first := breeds_left(lines)) is not None:
        contents.lead("breeds-left", "Breeds of dogs that the samples still mention", first, "", "")
    breeds = [figure for line in lines if (figure := breeds_figure(line)) is not None]
    if breeds:
        worlds: dict[tuple[str, ...], list[str]] = {}
        for line in lines:
            groups = tuple(group for group, _ in groups_of(breed_shares(line.rows, line.run.config)))
            names = worlds.setdefault(groups, [])
            names += [] if line.run.name in names or not groups else [line.run.name]
        keys = ""
        for groups, names in worlds.items():
            items = "".join(
                f'<li><svg viewBox="0 0 24 10" aria-hidden="true"><rect width="24" height="10" data-tone="{_tone(at, groups):.4f}"/></svg>'
                f"{escaped(group, 60)}</li>"
                for at, group in enumerate(groups)
            )
            of = f"<li><b>{escaped(', '.join(names), 120)}</b></li>" if len(worlds) > 1 else ""
            keys += f'<ul class="key">{of}{items}</ul>' if items else ""
        reading = how_to_read(
            "Each bar is all mentions of breeds in one generation's samples; the first bar is how often each is mentioned in "
            "truth. The most frequent stand below: as they grow, the rare ones above are crowded out.",
            "Whether what is said of a breed is true. Samples are few: a breed of one in several thousand may be missing by chance.",
        )
        inside = f'{_said(contents)}{reading}<div class="tools">{keys}</div>{contents.grid(breeds, "middle")}'
        contents.add("breeds", "Who is crowded out: the breeds of dogs", inside)
    facts = [figure for line in contents.texts if (figure := facts_figure(line)) is not None]
    if facts:
        names = list(BANDS)
        key = "".join(
            f'<li><svg viewBox="0 0 24 10" aria-hidden="true"><rect width="24" height="10" data-tone="{_tone(at, names):.4f}"/></svg>{name}</li>'
            for at, name in enumerate(names)
        )
        reading = how_to_read(
            "Of the facts that samples state, the share that is true, by how often real text states the fact. The line of the "
            "rarest fifth falls first.",
            "Facts that are not stated any more; a fact is counted as often as it is stated.",
        )
        inside = f'{reading}<div class="tools"><ul class="key">{key}</ul></div>{contents.grid(facts, "middle")}'
        contents.add("facts", "Which facts stay true", inside)


def _said(contents: Contents) -> str:
    """What was lost, in sentences on each run."""
    parts = []
    for index, run in enumerate(contents.runs):
        name = f"<b>{escaped(run.name)}.</b> " if len(contents.runs) > 1 else ""
        parts += [
            f'<p data-run="{index}">{name}{escaped(sentence)}{of_all()}</p>'
            for sentence in world_said(world_left(run.rows, run.config))
        ]
    return "".join(parts)


def breeds_left(lines: Sequence[Series]) -> Figure | None:
    """How many breeds are still mentioned, and how many as many samples of the truth would mention."""
    measure = next(measure for measure in INSTRUMENTS if measure.name == "breeds_left")
    figure = curve(measure, lines)
    if figure is None:
        return None
    traces = [{**trace, "showlegend": trace["meta"]["role"] == "mean"} for trace in figure.traces]
    expected: dict[float, list[str]] = {}
    for line in lines:
        for there in line.means("breeds_expected").values():
            names = expected.setdefault(rounded(there.mean), [])
            names += [] if line.label in names else [line.label]
    last = max(max(line.generations) for line in lines)
    for most, names in list(expected.items())[:LEVELS]:
        of = f" ({', '.join(names)})" if len(expected) > 1 else ""
        traces.append(level_line(most, last, f"as many samples of the truth{label(of)}", "floor"))
    return replace(figure, traces=traces, layout={**figure.layout, "showlegend": True}, height=430)


def groups_of(shares: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """The most frequent breeds alone, the others by rank: what it is called, and which breeds."""
    names = list(shares)
    groups = [(name, [name]) for name in names[:NAMED]]
    begin = NAMED
    for end in (*(until for until in UNTIL if until < len(names)), len(names)):
        if end > begin:
            groups.append((f"ranks {begin + 1} to {end}", names[begin:end]))
        begin = max(begin, end)
    return groups


def breeds_figure(line: Series) -> Figure | None:
    """Shares of mentions by generation, stacked, the truth beside."""
    truth = breed_shares(line.rows, line.run.config)
    counts = {g: counted for g in line.generations if (counted := _counts(line, g, truth)) is not None}
    if not truth or not counts:
        return None
    groups = groups_of(truth)
    steps = _few(sorted(counts))
    places = [TRUTH, *(f"{g}" for g in steps)]
    traces = []
    for at, (name, breeds) in enumerate(groups):
        shares = [sum(truth[breed] for breed in breeds)]
        shares += [sum(counts[g][breed] for breed in breeds) / sum(counts[g].values()) for g in steps]
        traces.append(
            {
                "type": "bar",
                "x": places,
                "y": [rounded(share) for share in shares],
                "name": label(name),
                "hovertemplate": f"{label(name)}: %{{y:.1%}}<extra></extra>",
                "meta": {"s": line.index, "role": "part", "t": _tone(at, groups)},
            }
        )
    layout = layout_of("share of mentions", 0) | {"barmode": "stack", "bargap": 0.12}
    layout["xaxis"] = {"title": {"text": "generation"}, "type": "category", "fixedrange": True}
    layout["yaxis"] |= {"range": [0, 1], "tickformat": ".0%"}
    last = steps[-1]
    left = [sum(1 for count in counts[g].values() if count) for g in (steps[0], last)]
    first = groups[0][0]
    share = sum(counts[last][breed] for breed in groups[0][1]) / sum(counts[last].values())
    return Figure(
        f"breeds_{line.index}",
        line.label,
        "",
        "",
        f"Shares of mentions of breeds by generation, {line.label}. Of {len(truth)} breeds {left[0]} are mentioned at generation "
        f"{steps[0]}, {left[1]} at generation {last}; {first} has {percent(share)} then, in truth {percent(truth[first])}.",
        traces,
        layout,
        height=300,
        series=line,
    )


def facts_figure(line: Series) -> Figure | None:
    """The share of stated facts that is true, a line for each fifth of the facts by their frequency."""
    traces = []
    ends = []
    for at, band in enumerate(BANDS):
        means = line.means("facts_true_by_band", at)
        if not means:
            continue
        traces.append(
            {
                "x": list(means),
                "y": [rounded(there.mean) for there in means.values()],
                "mode": "lines+markers",
                "name": band,
                "hovertemplate": f"{band}: %{{y:.0%}}<extra></extra>",
                "meta": {"s": line.index, "role": "tone", "t": _tone(at, BANDS)},
            }
        )
        ends.append(f"{band} {percent(means[max(means)].mean)}")
    if not traces:
        return None
    layout = layout_of("share that is true", max(line.generations))
    layout["yaxis"] |= {"range": [0, 1.02], "tickformat": ".0%"}
    return Figure(
        f"facts_{line.index}",
        line.label,
        "",
        "",
        f"Stated facts that are true, by how frequent the fact is in real text, {line.label}. At the last generation: {', '.join(ends)}.",
        traces,
        layout,
        height=300,
        series=line,
    )


def _counts(line: Series, generation: int, truth: Mapping[str, float]) -> dict[str, float] | None:
    """Mentions of each breed, all counted seeds together; None where there are none."""
    total = dict.fromkeys(truth, 0.0)
    for row in line.at(generation):
        if row.where.seed in line.counted:
            for breed, count in mentions(row, list(total)).items():
                total[breed] += count
    return total if any(total.values()) else None


def _few(steps: Sequence[int], most: int = 16) -> list[int]:
    """Generations of which there are bars."""
    return (
        list(steps) if len(steps) <= most else [steps[round(at * (len(steps) - 1) / (most - 1))] for at in range(most)]
    )


def _tone(at: int, of: Sequence[object]) -> float:
    """From dark, the most frequent, to pale."""
    return 1 - at / max(1, len(of) - 1)
