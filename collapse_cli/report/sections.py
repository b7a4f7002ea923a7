"""The sections of the page: each makes its HTML, or none where a run has nothing for it."""

from collections.abc import Sequence

from collapse_cli.families import instruments
from collapse_cli.report.causes import causes_table
from collapse_cli.report.check import checks
from collapse_cli.report.contents import Contents
from collapse_cli.report.decile_maps import decile_maps
from collapse_cli.report.figures import curve, perplexity, same_scale
from collapse_cli.report.forecast import fan, outlook
from collapse_cli.report.histograms import chosen, histograms
from collapse_cli.report.html_elements import cells, folded, heading, how_to_read, leaves, note, of_all, plot, split
from collapse_cli.report.loading import Run, pooled
from collapse_cli.report.mixtures import mixtures
from collapse_cli.report.other_families import families, own_of_text, pictures
from collapse_cli.report.remedies import what_stopped_it
from collapse_cli.report.several_models import lineages, more
from collapse_cli.report.summaries import (
    ceilings,
    family_glance,
    floored,
    floors,
    glance_table,
    left_out,
    other_experiments,
    provenance,
    published_table,
    stages,
    warned,
)
from collapse_cli.report.text import escaped
from collapse_cli.report.text_sections import browse, phrases, texts
from collapse_cli.report.world import world
from collapse_cli.where import Arm

OLD = "was made before this was measured, or with the instrument switched off"
KEYS = 2000  # hashes of models that are shown
CLASSES_OF = {"verdict": "words"}  # of columns
_CLASSES = {"inside": "inside", "outside": "outside"}


def warnings(runs: Sequence[Run]) -> str:
    """Guard rails, before all that is read from the numbers; and what could not be read."""
    kinds = warned(runs)
    several = len(runs) > 1
    items = [
        f"<li>{f'{escaped(run.name)}: ' if several else ''}{escaped(text, 300)} "
        f"<span>({escaped(where)}; {count} row{'s' if count > 1 else ''})</span></li>"
        for run, text, where, count in kinds
    ]
    shown = "".join(items[:8])
    if len(items) > 8:
        shown += f"<li>and {len(items) - 8} more kinds of warnings, in metrics.jsonl</li>"
    parts = []
    if shown:
        parts.append(
            '<aside class="warnings" id="warnings" aria-labelledby="warnings-title"><h2 id="warnings-title">'
            f"Read with care: {len(items)} guard rail{'s' if len(items) > 1 else ''} gave warnings</h2><ul>{shown}</ul></aside>"
        )
    for run in runs:
        if run.notes:
            lines = "".join(f"<li>{escaped(trouble, 300)}</li>" for trouble in run.notes[:20])
            parts.append(
                '<aside class="warnings"><h2>Some of the run folder could not be read</h2>'
                f"<ul>{lines}</ul><span>{escaped(run.name)}; the rest is shown.</span></aside>"
            )
    return "".join(parts)


def glance(contents: Contents) -> None:
    if all(not run.trained for run in contents.runs):
        return
    if not contents.series and not any(run.mixture and run.rows for run in contents.runs):
        contents.add("glance", "At a glance", note("No generation has been measured yet."))
        return
    inside = ""
    if contents.texts:
        names, rows = glance_table(contents.texts, contents.diagnoses)
        table = [
            [heading(line), *(split(cell) for cell in row[1:])] for line, row in zip(contents.texts, rows, strict=True)
        ]
        inside = cells(
            "Each policy at its last generation; means over seeds, with 95% intervals where there are several",
            names,
            table,
            kind="wide glance",
            row_series=[line.index for line in contents.texts],
            classes=[CLASSES_OF.get(name, "") for name in names],
            beside=of_all("seeds"),
        )
    for learner in contents.learners:
        names, rows = family_glance(contents.of(learner))
        table = [
            [heading(line), *(split(cell) for cell in row[1:])]
            for line, row in zip(contents.of(learner), rows, strict=True)
        ]
        caption = f"{escaped(contents.title_of(learner))}: each policy at generation 0 and at its last one, with 95% intervals"
        own = [line.index for line in contents.of(learner)]
        heads = [escaped(name) for name in names]
        inside += cells(caption, heads, table, kind="wide glance", row_series=own, beside=of_all("seeds"))
    for index, (run, diagnosis) in enumerate(zip(contents.runs, contents.diagnoses, strict=True)):
        if run.compared is not None:  # its sentences stand in a section of its own
            continue
        if inside or len(contents.runs) > 1:
            name = f"<b>{escaped(run.name)}.</b> " if len(contents.runs) > 1 else ""
            whole = "" if run.mixture else of_all()
            inside += f'<p class="whole" data-run="{index}">{name}{escaped(diagnosis.verdict)}{whole}</p>'
        lines = "".join(
            f"<li>{escaped(policy.arm)}: {escaped(call.text, 400)}</li>"
            for policy in diagnosis.arms
            for call in policy.calls.values()
            if call.evidence or call.called
        )
        whose = f"{escaped(run.name)}: " if len(contents.runs) > 1 else ""
        notes = "".join(f"<li>{whose}{escaped(remark, 400)}</li>" for remark in diagnosis.notes)
        if len(contents.runs) > 1:  # of several runs they are many lines
            lines, notes = lines + notes, ""
        if lines:
            of = f" · {escaped(run.name)}" if len(contents.runs) > 1 else ""
            inside += folded(f"How the calls are made: rules, statistics, intervals{of}", f"<ul>{lines}</ul>")
        if notes:
            inside += f'<ul class="reading">{notes}</ul>'
    if inside:
        contents.add("glance", "At a glance", inside)


def causes(contents: Contents) -> None:
    if table := causes_table(contents.runs):
        contents.add("causes", "Which error it is", table)


def perplexities(contents: Contents) -> None:
    figure = perplexity(contents.texts, floors(contents.runs), ceilings(contents.runs))
    if figure is None:
        contents.add("perplexity", "Perplexity by generation", "")
        return
    tools = '<div class="tools"><button type="button" data-log="perplexity" aria-pressed="true">logarithmic axis</button></div>'
    notes = [*left_out(contents.texts), *floored(contents.runs)]
    lines = "".join(f"<li>{escaped(text, 400)}</li>" for text in notes)
    over = f'<ul class="reading">{lines}</ul>' if lines else ""
    contents.lead("perplexity", "Perplexity by generation", figure, tools, over)


def samples(contents: Contents) -> None:
    figures = histograms(contents.texts)
    title = "The samples, seen by generation 0"
    if not figures:
        contents.add("samples", title, contents.curves(instruments("samples")))
        return
    there = sorted({g for line in contents.texts for g in line.generations if pooled(line.at(g)) is not None})
    few = f" Of {len(there)} generations {len(chosen(there))} are drawn." if len(chosen(there)) < len(there) else ""
    reading = how_to_read(
        "Each ridge is one generation's samples, the first at the top, by how surprising the first model finds them; the "
        "dotted line is generation 0's median. A peak that moves left is text piling up where that model was sure already; "
        "a foot that grows to the right is text it would not have written. Both at once leave the mean where it was.",
        f"Whether a sample is true, or sensible. All seeds are pooled.{few}",
    )
    tools = (
        '<div class="tools"><button type="button" data-log="histograms" aria-pressed="false">'
        "logarithmic shares: show the tails</button></div>"
    )
    inside = f"{reading}{tools}{contents.grid(figures, 'tall')}"
    contents.add("samples", title, inside + contents.curves(instruments("samples")))


def tails(contents: Contents) -> None:
    title = "What is forgotten first: the tails"
    maps = decile_maps(contents.texts)
    pairs = same_scale([curve(measure, contents.texts) for measure in instruments("tails")[:2]])
    rest = [curve(measure, contents.texts) for measure in instruments("tails")[2:]]
    inside = ""
    if maps:
        reading = how_to_read(
            "Loss on real test text against generation 0, by how frequent a token is in the real corpus: each decile "
            "holds a tenth of its tokens. Warm is worse than generation 0, cold better; a dot means that no change is shown: "
            "the 95% interval holds 0. Colours grow with the square root, so that small changes are seen beside large "
            "ones. Early collapse is a warm row of rare tokens over a pale row of frequent ones.",
            "Tokens of the test text that never occur in the real corpus; they are counted apart.",
        )
        inside += f"{reading}{contents.grid(maps, 'middle')}"
    contents.add("tails", title, inside + contents.grid([*pairs, *rest], "small"))


def grids(contents: Contents) -> None:
    """Diversity, repetition, the model on real text, and the truth where it is known."""
    for name, title in (
        ("diversity", "Diversity of the samples"),
        ("repetition", "Repetition"),
        ("model", "The model on real text"),
        ("truth", "Against the known truth"),
        ("statements", "What the samples state, and what is true"),
    ):
        inside = contents.curves(instruments(name))
        if inside or name not in ("truth", "statements"):
            contents.add(name, title, inside)


def published(contents: Contents) -> None:
    entries = published_table(contents.runs)
    if not entries:
        return
    signs = {"inside": "✓ ", "outside": "✗ "}
    rows = [
        [
            escaped(entry.what if len(contents.runs) == 1 else f"{entry.run.name}: {entry.what}"),
            escaped(entry.where),
            escaped(entry.published),
            escaped(entry.ours),
            f'<span class="{_CLASSES.get(entry.verdict, "not-run")}">{signs.get(entry.verdict, "")}{escaped(entry.said)}</span>',
            escaped(entry.source, 400),
        ]
        for entry in entries
    ]
    theory = any(entry.theory for entry in entries)
    names = ["what", "where", "published or theory" if theory else "published", "measured here", "verdict", "source"]
    title = "Measured against published numbers and theory" if theory else "Measured against published"
    rule = f"{title}: inside means within the tolerance of the value, or within 4 standard errors of the mean"
    inside = cells("; ".join([rule, *map(escaped, other_experiments(contents.runs))]), names, rows)
    contents.add("published", title, inside)


def forecast(contents: Contents) -> None:
    """Where it is heading, and how much real data would stop it."""
    if not any(contents.forecasts):
        return
    parts = []
    for index, (run, outcome) in enumerate(zip(contents.runs, contents.forecasts, strict=True)):
        if outcome is None:
            continue
        if len(contents.runs) > 1:
            parts.append(f"<h3>{escaped(run.name)}</h3>")
        parts.append(f"<ul>{''.join(f'<li>{escaped(sentence, 600)}</li>' for sentence in outcome.sentences)}</ul>")
        lines = {str(line.arm): line.index for line in contents.of_run(index)}
        head, rows = outlook(outcome)
        if rows:
            table = [[escaped(row[0]), *(split(text) for text in row[1:])] for row in rows]
            own = [lines.get(row[0]) for row in rows]
            caption = "What is expected: median and 90% interval"
            parts.append(cells(caption, head, table, kind="wide glance", row_series=own, beside=of_all("seeds")))
    figure = fan(contents.texts, contents.forecasts)
    if figure is not None:
        contents.figures.append(figure)
        parts.insert(0, plot(figure, "tall", card=False))
    if parts:
        parts.insert(0, f'<p class="mark">{of_all()}</p>')
    contents.add("forecast", "Where this is heading", "".join(parts))


def making(contents: Contents) -> None:
    """How the numbers were made."""
    parts = []
    for run in contents.runs:
        several = len(contents.runs) > 1
        if several:
            parts.append(f"<h3>{escaped(run.name)}</h3>")
        rows = [[escaped(name), f"<code>{escaped(value, 1000)}</code>"] for name, value in provenance(run).items()]
        parts.append(cells("Provenance", ["", ""], rows, kind="settings"))
        names, timed = stages(run)
        if timed:
            table = [[escaped(cell) for cell in row] for row in timed]
            parts.append(
                cells("Time by stage, of what this run computed itself", names, table, classes=["", *["n"] * 6])
            )
        parts.append(_keys(run))
    trees = [leaves(run.config) for run in contents.runs]
    every = list(dict.fromkeys(name for tree in trees for name in tree))
    differs = ["differs" if len({tree.get(name) for tree in trees}) > 1 else "" for name in every]
    rows = [[escaped(name), *(f"<code>{escaped(tree.get(name, '–'))}</code>" for tree in trees)] for name in every]
    columns = ["option", *(escaped(run.name) for run in contents.runs)]
    inside = cells("The whole configuration", columns, rows, kind="settings", row_classes=differs)
    parts.append(folded("Configuration" if len(trees) == 1 else "Configurations; what differs is marked", inside))
    contents.add("making", "How it was made", "".join(parts))


def _keys(run: Run) -> str:
    """Keys of models; those of a block of generations, or of cells, are one."""
    generations_of: dict[tuple[Arm, int, str], list[int]] = {}
    for row in run.rows:
        if row.model_key:
            generations_of.setdefault((row.where.arm, row.where.seed, row.model_key), []).append(row.where.generation)
    rows = [
        [
            escaped(arm),
            str(seed),
            f"{min(at)}–{max(at)}" if len(at) > 1 else str(at[0]),
            f"<code>{escaped(key)}</code>",
        ]
        for (arm, seed, key), at in generations_of.items()
    ]
    if not rows:
        return ""
    more = f"; the first {KEYS:,} of {len(rows):,}" if len(rows) > KEYS else ""
    inside = cells(f"Keys of the models in the store{more}", ["policy", "seed", "generation", "key"], rows[:KEYS])
    return folded(f"Hashes of all models ({len(rows):,})", inside)


SECTIONS = (
    checks,
    causes,
    glance,
    more,
    what_stopped_it,
    world,
    families,
    pictures,
    mixtures,
    own_of_text,
    perplexities,
    lineages,
    forecast,
    samples,
    tails,
    grids,
    texts,
    browse,
    phrases,
    published,
    making,
)
