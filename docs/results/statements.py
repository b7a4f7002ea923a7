"""What runs on `data.source = world` say in words: tables of breeds and facts by generation, and the picture of who is crowded out."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from collapse_cli.data.world.world import World, world
from collapse_cli.metrics.intervals import over_seeds
from collapse_cli.metrics.numbers import spread
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder

SHOWN = 12  # breeds that have a line or a colour of their own
PARTS = ("frequent", "", "", "", "rare")


def sections(folder: RunFolder, picture: Path) -> list[str]:
    """The parts of a page that a run on `world` has besides, as lines of Markdown; `picture` is made beside it."""
    config = folder.config()
    known = world(config.data.world.model_dump())
    rows = [row for row in folder.rows() if "breed_counts" in row.fields]
    policies = list(dict.fromkeys(row.where.policy for row in rows))
    draw(rows, policies, known, picture)
    parts = ["## Who is crowded out", "", f"![breeds by generation]({picture.name})", ""]
    parts += ["Shares of the breeds in what each generation wrote, seeds together; beside them what is true.", ""]
    for policy in policies:
        some = [row for row in rows if row.where.policy == policy]
        parts += [f"### {policy}", "", *breeds(some, known), ""]
    parts += ["## What is still true", "", *measures(rows, policies), ""]
    parts += ["## Facts by how frequent they are in real text", "", *facts(rows, policies), ""]
    return [*parts, "## In its own words", "", *words(rows, policies), ""]


def breeds(rows: Sequence[Row], known: World) -> list[str]:
    """Mentions by breed and generation, seeds together: the most frequent ones, others in groups, and what was lost when."""
    generations = sorted({row.where.generation for row in rows})
    names = list(known.things.shares["breed"])
    counts = {g: counted([row for row in rows if row.where.generation == g], names) for g in generations}
    groups = grouped(len(names))
    lines = ["| breed | truth | " + " | ".join(map(str, generations)) + " |"]
    lines += ["|---|---:|" + "---:|" * len(generations)]
    shares = np.array(list(known.things.shares["breed"].values()))
    for group in groups:
        name = named(group, names)
        told = [f"{100 * counts[g][group].sum() / max(1, counts[g].sum()):.1f}%" for g in generations]
        lines.append(f"| {name} | {100 * shares[group].sum():.1f}% | " + " | ".join(told) + " |")
    left = [str(int((counts[g] > 0).sum())) for g in generations]
    lines.append(f"| breeds left, of {len(names)} | | " + " | ".join(left) + " |")
    gone = [[names[i] for i in np.flatnonzero(counts[g] > 0)] for g in generations]
    last = {
        name: max(g for g, there in zip(generations, gone, strict=True) if name in there)
        for each in gone
        for name in each
    }
    lost = {g: [name for name in names if last.get(name) == g] for g in generations[:-1]}
    told = [
        f"after generation {g}: {', '.join(some[:8])}{' …' if len(some) > 8 else ''}"
        for g, some in lost.items()
        if some
    ]
    never = sum(name not in last for name in names)
    return [
        *lines,
        "",
        f"Mentioned for the last time (in no later generation of any seed): {'; '.join(told) or 'none'}. Never mentioned: {never}.",
    ]


def grouped(breeds: int) -> list[list[int]]:
    """The ranks of breeds, from 0, that are shown together: the first `SHOWN` alone, all others in thirds."""
    alone = [[rank] for rank in range(min(SHOWN, breeds))]
    return alone + [part.tolist() for part in np.array_split(np.arange(len(alone), breeds), 3) if len(part)]


def named(group: Sequence[int], names: Sequence[str]) -> str:
    """What such a group is called."""
    return names[group[0]] if len(group) == 1 else f"ranks {group[0] + 1} to {group[-1] + 1}"


def counted(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """(breeds,) mentions in all of the rows."""
    return np.asarray(np.sum([[row.fields["breed_counts"].get(name, 0) for name in names] for row in rows], axis=0))


def measures(rows: Sequence[Row], policies: Sequence[str]) -> list[str]:
    """The first and the last generation in numbers: mean and 95% interval over seeds."""
    last = max(row.where.generation for row in rows)
    shown = {
        "perplexity": "perplexity on real test text",
        "kl_truth": "KL(truth ‖ model), nats/token",
        "breeds_left": "breeds mentioned",
        "breeds_tv": "breeds away from their true shares",
        "facts_left": "facts stated rightly",
        "facts_true": "stated facts that are true",
        "sentences_accepted": "sentences of the grammar",
        "documents_possible": "texts that could be real",
        "possible_nll": "their true loss, nats/token",
        "association": "trades with their usual sex",
        "breeds_unknown": "breeds that do not exist",
        "people_unknown": "people that do not exist",
        "places_unknown": "places that do not exist",
        "dates_unknown": "dates that do not exist",
        "low_share": "pile-up at low perplexity",
        "high_share": "long tail at high perplexity",
        "exact_duplicate_rate": "continuations that repeat another",
    }
    first, some = policies[0], next(iter(rows))
    true = truths(some)
    lines = [f"| | real text | generation 0 | {' | '.join(f'{policy}, generation {last}' for policy in policies)} |"]
    lines += ["|---|---:|---:|" + "---:|" * len(policies)]
    for name, title in shown.items():
        cells = [told(rows, first, 0, name), *(told(rows, policy, last, name) for policy in policies)]
        lines.append(f"| {title} (`{name}`) | {true.get(name, '–')} | {' | '.join(cells)} |")
    lines += [
        "",
        "Means of the seeds (of perplexities the geometric mean) and 95% t intervals. Real text: what is expected of as many real documents as generation 0 wrote for the first policy. "
        "A continuation is a text without its first word, which was given.",
    ]
    return lines


def truths(row: Row) -> dict[str, str]:
    """What real text has, where that is known exactly."""
    known = {
        "perplexity": f"{math.exp(row.measure('entropy_rate') or math.nan):.2f}",
        "breeds_left": f"{row.measure('breeds_expected'):.1f}",
        "facts_left": f"{row.measure('facts_expected'):.0f}",
        "association": f"{row.measure('association_truth'):.2f}",
        "possible_nll": f"{row.measure('entropy_rate'):.3f}",
    }
    nothing = ["kl_truth", "breeds_unknown", "people_unknown", "places_unknown", "dates_unknown"]
    return (
        known
        | dict.fromkeys(nothing, "0")
        | dict.fromkeys(("facts_true", "sentences_accepted", "documents_possible"), "1")
    )


def facts(rows: Sequence[Row], policies: Sequence[str]) -> list[str]:
    """Facts left and facts true by band, for some generations."""
    last = max(row.where.generation for row in rows)
    lines = [
        "| policy, generation | " + " | ".join(f"fifth {i + 1} {name}".strip() for i, name in enumerate(PARTS)) + " |"
    ]
    lines += ["|---|" + "---:|" * len(PARTS)]
    for policy in policies:
        for g in sorted({0, 1, 2, 4, last} & set(range(last + 1))):
            if g == 0 and policy != policies[0]:
                continue
            cells = [
                f"{told(rows, policy, g, 'facts_left_by_band', band)}; {told(rows, policy, g, 'facts_true_by_band', band)}"
                for band in range(len(PARTS))
            ]
            lines.append(f"| {policy}, {g} | " + " | ".join(cells) + " |")
    return [
        *lines,
        "",
        "Share of the facts that are stated rightly at least once; share of their statements that are true.",
    ]


def told(rows: Sequence[Row], policy: str, generation: int, name: str, part: int | None = None) -> str:
    """Mean and interval over seeds of what is measured; a dash where nothing is."""
    some = [row for row in rows if (row.where.policy, row.where.generation) == (policy, generation)]
    values = [value for row in some if (value := row.measure(name, part)) is not None]
    if part is not None:
        return f"{np.mean(values):.2f}" if values else "–"
    return spread(over_seeds(name, values)) if values else "–"


def words(rows: Sequence[Row], policies: Sequence[str]) -> list[str]:
    """The same beginnings, continued by the first and the last generation; what is not right is struck out."""
    last = max(row.where.generation for row in rows)
    seed = min(row.where.seed for row in rows)
    lines = []
    for policy, generation in ((policies[0], 0), *((policy, last) for policy in policies)):
        row = next(
            one
            for one in rows
            if (one.where.policy, one.where.seed, one.where.generation) == (policy, seed, generation)
        )
        lines += [f"**{policy}, generation {generation}** (seed {seed})", ""]
        for example in row.fields["examples"][:5]:
            said = [one["text"] if one["verdict"] == "right" else f"~~{one['text']}~~" for one in example["sentences"]]
            lines.append(f"- {' '.join(said)}")
        lines.append("")
    return [*lines, "Struck out: sentences that are not true, name what does not exist, or are none of the grammar."]


def draw(rows: Sequence[Row], policies: Sequence[str], known: World, target: Path) -> None:
    """Stacked shares of breeds by generation, a panel for each policy, the truth in front of each."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(known.things.shares["breed"])
    shares = np.array(list(known.things.shares["breed"].values()))
    generations = sorted({row.where.generation for row in rows})
    groups = grouped(len(names))
    colours = [
        *plt.get_cmap("viridis")(np.linspace(0.95, 0.25, SHOWN)),
        *plt.get_cmap("Reds")(np.linspace(0.35, 0.85, 3)),
    ]
    figure, panels = plt.subplots(
        1, len(policies), figsize=(3.4 * len(policies), 4.4), dpi=160, sharey=True, layout="constrained", squeeze=False
    )
    for panel, policy in zip(panels[0], policies, strict=True):
        counts = [
            counted([row for row in rows if (row.where.policy, row.where.generation) == (policy, g)], names)
            for g in generations
        ]
        columns = [shares, *(each / max(1, each.sum()) for each in counts)]
        places = [-1.5, *generations]
        for group, colour in zip(groups, colours, strict=False):
            bottoms = [column[: group[0]].sum() for column in columns]
            tops = [column[group].sum() for column in columns]
            panel.bar(places, tops, 0.92, bottoms, color=colour, label=named(group, names))
        panel.set_xticks(places, ["truth", *map(str, generations)], fontsize=8)
        panel.set_title(policy, loc="left", fontsize=11)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("generation")
    panels[0, 0].set_ylabel("share of all mentions of a breed")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=7.5, frameon=False)
    figure.savefig(target, facecolor="white")
    plt.close(figure)
