"""A run beside a published curve, as shape and not as value: .venv/bin/python docs/results/shapes.py PAGE RUN_FOLDER

PAGE is smollm2-wikitext2 or nature-vae-full. Writes `docs/results/PAGE.md` and its pictures from what is finished of the run (stopped or at work,
that is no matter); computes nothing. What people have to say stands in `prose/PAGE.md` and is put in unchanged.
"""

import argparse
import json
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np

from collapse_cli.config import load, preset_path, read_toml
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.names import different, leaves
from collapse_cli.config.published import LOOKED_UP
from collapse_cli.findings.diagnosis import diagnose_run
from collapse_cli.metrics.numbers import value
from collapse_cli.records.kept_texts import KeptText
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report.loading import Series, read, series_of
from collapse_cli.report.sample_texts import shown_texts, texts_of
from collapse_cli.report.text import visible
from collapse_cli.terminal.run import protocols

HERE = Path(__file__).parent
PROMPTS = 3  # that are shown with what was made of them
RUN = 4  # words in a row that count as copied from a prompt
PICTURES = 14  # of a generation
OF_SAMPLES = {  # measures of samples, and what the table calls them
    "sample_perplexity": "perplexity under generation 0",
    "distinct_2": "distinct pairs of tokens",
    "rep_4": "repeated 4-grams in a text",
    "exact_duplicate_rate": "texts that are there twice",
    "self_bleu": "self-BLEU",
}


@dataclass(frozen=True)
class Curve:
    """What was published, by generation."""

    label: str
    values: Mapping[int, float]


@dataclass(frozen=True)
class Page:
    """Which measure a page shows, and beside what.

    Attributes:
        base: the generation whose value is 1 in the shape.
    """

    title: str
    measure: str
    words: str
    base: int
    curves: Sequence[Curve]


def published(preset: str, what: str, label: str) -> Curve:
    """A curve of the values that a preset holds its runs against."""
    tree = read_toml(preset_path(preset))
    entries = [*tree.get("expect", []), *tree.get("variants", {}).get("paper", {}).get("expect", [])]
    return Curve(label, {one["generation"]: one["value"] for one in entries if one["what"] == what})


def pages() -> dict[str, Page]:
    """The pages, by the preset that they are of."""
    whole = published("opt125m-wikitext2", "perplexity", "Nature: no real rows")
    tenth = published("nature-keep-10", "perplexity", "Nature: 10% real rows, 10 epochs")
    digits = published("nature-vae", "latent_spread", "Nature's notebook, MNIST")
    text, images = "perplexity on real test text", "spread of latents under generation 0's encoder"
    return {
        "smollm2-wikitext2": Page("a pretrained model through the whole recipe", "perplexity", text, 0, [whole, tenth]),
        "nature-vae-full": Page("60,000 images, the paper's network and batches", "latent_spread", images, 1, [digits]),
    }


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", choices=pages())
    parser.add_argument("run", type=Path)
    parser.add_argument("--into", type=Path, default=HERE, help="the folder for the page and its pictures")
    options = parser.parse_args()
    folder = options.run.resolve()
    page, run = pages()[options.page], RunFolder(folder.parent, folder.name)
    rows = run.rows()
    if not rows:
        raise SystemExit(f"{options.run} has no finished generation yet")
    if len({row.where.seed for row in rows}) > 1:
        raise SystemExit(f"{options.run} has several seeds, and this page is of one")
    picture = options.into / f"{options.page}.png"
    draw(page, rows, picture)
    config = run.config()
    known = [row.where for row in rows]
    reached = [f"{policy} {max(w.generation for w in known if w.policy == policy)}" for policy in policies(rows)]
    whole = (config.loop.generations + 1) * len(config.loop.policies)
    parts = [f"# {options.page}: {page.title}", "", f"    {command(options.page, config)}", ""]
    parts += [
        f"Generations reached: {', '.join(reached)} ({len(rows)} of {whole} models; the same command goes on where it was). {machine(run)}",
        "",
        f"![{page.words} by generation]({picture.name})",
        "",
        *shape(page, rows),
        "",
        f"{page.words[:1].upper()}{page.words[1:]}, one seed; in brackets over that of generation {page.base}, which is what can be compared.",
        *([f"{'; '.join(protocols(rows))}.", ""] if page.measure == "perplexity" else [""]),
        f"> {diagnose_run(rows, run.record()['config']).verdict}",
        "",
    ]
    if page.measure == "perplexity":
        parts += ["## What the samples measure", "", *measures(run, rows), ""]
        parts += ["## What they look like", "", *words(run, rows)]
    else:
        grid = options.into / f"{options.page}-images.png"
        draw_images(rows, grid)
        parts += ["## What the models draw", "", f"![images by generation]({grid.name})", ""]
    prose = HERE / "prose" / f"{options.page}.md"
    if prose.exists():
        parts += [prose.read_text(encoding="utf-8").strip(), ""]
    parts += [
        f"Made by `docs/results/shapes.py {options.page} RUN_FOLDER` from the run folder; nothing above the remarks was typed."
    ]
    (options.into / f"{options.page}.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    print(options.into / f"{options.page}.md")


def command(preset: str, config: Experiment) -> str:
    """What starts such a run; where the model and the data lie is for whoever starts it, and what was looked up there is the run's own."""
    given, plain = config.model_dump(mode="json"), load(read_toml(preset_path(preset)), preset).model_dump(mode="json")
    changed = {
        key: value for key, value in leaves(different(plain, given)) if not key.startswith(("data.", "model.", "name"))
    }
    sets = [f" --set '{key}={json.dumps(value)}'" for key, value in changed.items() if key not in LOOKED_UP]
    return f"collapse run --preset {preset}{''.join(sets)}"


def policies(rows: Sequence[Row]) -> list[str]:
    """In the order of the run."""
    return list(dict.fromkeys(row.where.policy for row in rows))


def series(page: Page, rows: Sequence[Row]) -> list[Curve]:
    """What was measured, a curve for each policy."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if (measured := row.measure(page.measure)) is not None:
            found[row.where.policy][row.where.generation] = measured
    return [Curve(policy, found[policy]) for policy in policies(rows)]


def shape(page: Page, rows: Sequence[Row]) -> list[str]:
    """Values and their ratios by generation, ours and those that were published."""
    curves = [*series(page, rows), *page.curves]
    last = max(generation for curve in curves for generation in curve.values)
    lines = ["| generation | " + " | ".join(curve.label for curve in curves) + " |"]
    lines.append("|---:|" + "---:|" * len(curves))
    for generation in range(last + 1):
        cells = [cell(curve, generation, page.base) for curve in curves]
        lines.append(f"| {generation} | " + " | ".join(cells) + " |")
    return lines


def cell(curve: Curve, generation: int, base: int) -> str:
    """A value and its ratio to that of the base."""
    if generation not in curve.values:
        return "–"
    said = value(curve.values[generation])
    return f"{said} (×{curve.values[generation] / curve.values[base]:.2f})" if base in curve.values else said


def measures(run: RunFolder, rows: Sequence[Row]) -> list[str]:
    """What was measured of the samples of each model, and how much of the texts that were kept stands in their prompts."""
    texts = {row.where: texts_of(line, row) for line in series_of(read([run])) for row in line.rows}
    there = {name: label for name, label in OF_SAMPLES.items() if any(row.measure(name) is not None for row in rows)}
    heads = [*there.values(), f"copied from the prompt, {RUN} words in a row"]
    lines = ["| policy | generation | " + " | ".join(heads) + " |", "|---|---:|" + "---:|" * len(heads)]
    for row in sorted(rows, key=lambda row: (policies(rows).index(row.where.policy), row.where.generation)):
        found = [*(row.measure(name) for name in there), copied(texts.get(row.where, ()))]
        cells = ["–" if one is None else value(one) for one in found]
        lines.append(f"| {row.where.policy} | {row.where.generation} | " + " | ".join(cells) + " |")
    many = max(map(len, texts.values()), default=0)
    return [
        *lines,
        "",
        f"The last column is of the texts that the run folder keeps, {many} a model at most; the others are of all samples.",
    ]


def copied(made: Sequence[KeptText]) -> float | None:
    """Which share of the runs of `RUN` words in texts stands in their prompts word by word, on average over texts; None without texts."""
    shares = []
    for text in made:
        prompt, own = (
            {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}
            for words in (text.prompt.split(), text.text.split())
        )
        if own:
            shares.append(len(own & prompt) / len(own))
    return float(np.mean(shares)) if shares else None


def words(run: RunFolder, rows: Sequence[Row]) -> list[str]:
    """The first prompts that every model continues, and what generation 0 and the last ones made of them."""
    lines_of = series_of(read([run]))
    lasts = {
        policy: max(row.where.generation for row in rows if row.where.policy == policy) for policy in policies(rows)
    }
    first = policies(rows)[0]
    shown = [(f"generation 0, {first}", texts(lines_of, first, 0))]
    shown += [(f"generation {last}, {policy}", texts(lines_of, policy, last)) for policy, last in lasts.items() if last]
    prompts = list(shown[0][1])[:PROMPTS]
    lines = []
    for number, prompt in enumerate(prompts, 1):
        lines += [f"Prompt {number}:", "", *block(prompt), ""]
        for label, made in shown:
            if prompt in made:
                lines += [f"{label}:", "", *block(made[prompt]), ""]
    return lines


def texts(lines: Sequence[Series], policy: str, generation: int) -> dict[str, str]:
    """By prompt, what a model made of the prompts that every model continues."""
    return {
        text.prompt: text.text
        for line in lines
        for row in line.rows
        if (row.where.policy, row.where.generation) == (policy, generation)
        for text in shown_texts(line, row)
    }


def block(text: str) -> list[str]:
    """Text from outside as a block of code: line ends are shown, and nothing in it is Markdown."""
    shown = visible(text, 600).replace("\r", "").replace("\n", " ⏎ ")
    return [f"    {line}" for line in textwrap.wrap(shown, 140) or [""]]


def machine(run: RunFolder) -> str:
    """What the stages took, on which machine."""
    hardware = run.record()["hardware"]
    took: dict[str, list[float]] = defaultdict(list)
    for event in read([run])[0].events:
        seconds = event.get("seconds")
        if event.get("event") == "finished" and isinstance(seconds, int | float):
            took[str(event.get("work"))].append(float(seconds))
    parts = [
        f"{np.median(seconds):,.0f} s a stage of {work} ({len(seconds)})"
        for work, seconds in took.items()
        if max(seconds) >= 10
    ]
    said = f"On {hardware['cores']} cores of a shared machine ({hardware['machine']}, no GPU), beside much other work"
    return f"{said}; medians: {', '.join(parts)}." if parts else f"{said}."


def draw(page: Page, rows: Sequence[Row], target: Path) -> None:
    """The shapes: ours as lines, published ones dashed."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    colours = ("#0072b2", "#d55e00", "#009e73", "0.35", "0.6")
    figure, axis = plt.subplots(figsize=(7.2, 4.0), dpi=160, layout="constrained")
    ours = series(page, rows)
    for curve, colour in zip([*ours, *page.curves], colours, strict=False):
        if page.base not in curve.values:
            continue
        at = sorted(generation for generation in curve.values if generation >= page.base)
        ratios = [curve.values[generation] / curve.values[page.base] for generation in at]
        axis.plot(at, ratios, "o-" if curve in ours else "s--", color=colour, label=curve.label, markersize=4)
    axis.set_xlabel("generation")
    axis.set_ylabel(f"over that of generation {page.base}")
    axis.set_title(f"{page.words}: shape", fontsize=10, loc="left")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(target, facecolor="white")
    plt.close(figure)


def draw_images(rows: Sequence[Row], target: Path) -> None:
    """A line of images for each model, as the report keeps them."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = [
        (f"{row.where.policy}, {row.where.generation}", found) for row in rows if (found := row.images) is not None
    ]
    figure, axes = plt.subplots(
        len(lines), 1, figsize=(7.2, 0.62 * len(lines)), dpi=160, layout="constrained", squeeze=False
    )
    for (label, found), axis in zip(lines, axes[:, 0], strict=True):
        each = [np.frombuffer(one, np.uint8).reshape(found.height, found.width) for one in found.images[:PICTURES]]
        axis.imshow(np.concatenate(each, axis=1), cmap="gray", vmin=0, vmax=255)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
        axis.set(xticks=[], yticks=[])
    figure.savefig(target, facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    main()
