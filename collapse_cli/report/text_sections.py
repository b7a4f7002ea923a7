"""The sections in which people read: the same prompts over generations, a browser of samples, the most frequent phrases."""

from collapse_cli.metrics.numbers import size
from collapse_cli.records.kept_texts import FILE, MOST_BYTES, KeptText
from collapse_cli.report.contents import Contents
from collapse_cli.report.html_elements import cells, folded, heading, how_to_read, note, of_all
from collapse_cli.report.sample_texts import PROMPT, REPEATS, begun, browsed, continued, shown_texts
from collapse_cli.report.summaries import most_frequent
from collapse_cli.report.text import escaped, white


def texts(contents: Contents) -> None:
    """The same prompts, continued by every generation."""
    title = "The same prompts, generation after generation"
    by_prompt: dict[tuple[str, str], dict[int, dict[int, KeptText]]] = {}
    shown_seeds, known = set(), False
    for line in contents.texts:
        for g in line.generations:
            row = next((row for row in line.at(g) if row.examples or row.where in line.run.kept), None)
            if row is None or row.where.seed != line.seeds[0]:
                continue
            shown_seeds.add(row.where.seed)
            for text in shown_texts(line, row)[:16]:
                known = known or bool(text.spans)
                by_prompt.setdefault((text.row, text.prompt), {}).setdefault(g, {})[line.index] = text
    if not by_prompt:
        contents.add("texts", title, "")
        return
    columns = [
        line
        for line in contents.texts
        if any(line.index in there for at in by_prompt.values() for there in at.values())
    ]
    truth = (
        " What is not true in this world is marked in red, what its grammar does not have is dotted, what is true has a thin line."
        if known
        else ""
    )
    parts = [
        how_to_read(
            "Down the page one policy grows older, across it policies differ. "
            + (
                truth.strip()
                if known
                else "Words in colour belong to a phrase of three or more words that comes again within the same text."
            )
            + " ⏎ is the end of a line, ␣ a space that could be overlooked.",
            f"All but these prompts, and all seeds but {', '.join(map(str, sorted(shown_seeds)))}.",
        ),
        '<div class="tools"><button type="button" data-all="prompts" aria-pressed="false">all generations</button></div>'
        f'<div id="prompts" class="few columns-{min(len(columns), 8)}">',
    ]
    for index, ((_, prompt), by_generation) in enumerate(list(by_prompt.items())[:16]):
        there = sorted(by_generation)
        few = {there[round(t * (len(there) - 1))] for t in (0.0, 0.12, 0.3, 0.6, 1.0)}
        rows = [[str(g), *(_sample(by_generation[g].get(line.index)) for line in columns)] for g in there]
        inside = cells(
            f"Continuations of prompt {index + 1} by generation and policy",
            ["gen.", *(heading(line) for line in columns)],
            rows,
            kind="texts",
            series=[None, *(line.index for line in columns)],
            row_classes=["" if g in few else "more" for g in there],
        )
        summary = f"<b>Prompt {index + 1}</b> {white(escaped(begun(prompt), PROMPT + 4))} …"
        parts.append(folded(summary, inside, opened=index == 0, kind="prompt"))
    parts.append("</div>")
    contents.add("texts", title, "".join(parts))


def browse(contents: Contents) -> None:
    """All texts that were kept, to be searched; the page's script lays them out."""
    contents.kept = browsed(contents.texts)
    if not contents.kept:
        return
    count, of = len(contents.kept["texts"]), contents.kept["of"]
    few = f" Of {of:,} texts that were kept {count:,} are in this page, evenly chosen." if count < of else ""
    if lost := sum(run.not_kept for run in contents.runs):
        few += f" {lost:,} more had no room in {FILE}, which holds {size(MOST_BYTES)} at most; each model keeps as much as any other."
    reading = how_to_read(
        "Search for words, choose a policy, a generation, a seed, what is odd about a text; sort by how surprising generation "
        "0's model finds it. Policies that are hidden above are hidden here.",
        f"All texts that were not kept: a run keeps a few of each model, drawn evenly from the least to the most surprising.{few}",
    )
    contents.add("browse", "Look through the samples", f'{reading}<div id="browser"></div>')


def phrases(contents: Contents) -> None:
    """The most frequent 8-grams, at the beginning and at the end."""
    parts: list[str] = []
    begun: set[int] = set()
    for line in contents.texts:
        there = [g for g in line.generations if any(row.phrases for row in line.at(g))]
        if there and there[0] == 0 and line.run_index in begun:
            there = [g for g in there if g > 0][-1:]  # the policies of a run share generation 0
        begun.add(line.run_index)
        for g in dict.fromkeys([there[0], there[-1]]) if there else []:
            rows = [
                [white(escaped(text, 300), ends=True), f"{count:,.0f}", "–" if held is None else f"{held:,.0f}"]
                for text, count, held in most_frequent(line.at(g))
            ]
            table = cells(
                f"The most frequent 8-grams of generation {g}",
                ["phrase of 8 tokens", "times", "samples"],
                rows,
                kind="phrases wide",
                classes=["", "n", "n"],
            )
            whose = (
                heading(line)
                if g
                else escaped(f"{line.run.name}: all policies" if len(contents.runs) > 1 else "All policies")
            )
            hides = f' data-series="{line.index}"' if g else ""
            parts.append(f'<div class="card"{hides}><h3>{whose}{of_all("seeds")}</h3>{table}</div>')
    reading = how_to_read(
        "Phrases that many samples share; counts over all seeds. Their growth from the first generation to the last is "
        "the text becoming one.",
        "Phrases shorter than eight tokens, and those that vary by a word.",
    )
    inside = f'{reading}<div class="grid pairs">{"".join(parts)}</div>' if parts else ""
    if not parts and any(
        isinstance(row.fields.get("top_8grams"), list) for line in contents.texts for row in line.rows
    ):
        inside = note("No eight tokens in a row occur twice in the samples of any generation.")
    contents.add("phrases", "The most frequent phrases", inside)


def _sample(text: KeptText | None) -> str:
    if text is None:
        return "–"
    shown, share = continued(text.text, text.spans)
    return f"{shown}<small>{share:.0%} of words in repeated phrases</small>" if share >= REPEATS else shown
