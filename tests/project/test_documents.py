"""Documents that must keep up with the code: the command reference, the glossary, the index of docs/."""

import ast
import re
from pathlib import Path
from typing import Annotated, get_args

import typer
from support.scripts import PROJECT, script

from collapse_cli import families
from collapse_cli.cli.app import app
from collapse_cli.cli.repeated_options import App
from collapse_cli.config.policies import ACCUMULATING, KEEP_ROWS, SHARED, Rule
from collapse_cli.data.dataset import NUMBERS, OWN
from collapse_cli.families import FAMILIES
from collapse_cli.families.lm import STATEMENTS, TRUTH
from collapse_cli.findings.diagnosis import TRENDS
from collapse_cli.findings.forecast.laws import LAWS
from collapse_cli.view.runs import STATES

DOCS = PROJECT / "docs"


# --- docs/commands.md -------------------------------------------------------------------------------------------------


def test_the_command_reference_is_what_the_commands_say() -> None:
    made = script("docs/commands.py").page()
    there = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert there == made, "a command has changed: .venv/bin/python docs/commands.py writes the page anew"


def test_every_command_and_option_stands_in_the_reference() -> None:
    reference = script("docs/commands.py")
    page = reference.page()
    found = list(reference.commands(typer.main.get_command(app), "collapse"))
    assert {"collapse run", "collapse view", "collapse theory ridge"} <= {name for name, _ in found}
    for name, command in found:
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for one in command.params:
            if one.name != "help":
                assert reference.cell(reference.meaning(one, command)) in section, f"{name}: {one.name}"
                assert not one.opts[0].startswith("-") or f"`{one.opts[0]}" in section, f"{name}: {one.opts[0]}"


def test_the_reference_says_what_an_option_takes_and_its_default() -> None:
    made = App(help="Things.")

    @made.command()
    def count(
        what: Annotated[str, typer.Argument(help="A | thing.", metavar="THING")],
        often: Annotated[int | None, typer.Option(help="How often.")] = 3,
        where: Annotated[list[str] | None, typer.Option(help="Where.")] = None,
        loud: Annotated[bool, typer.Option("--loud", help="Aloud.")] = False,
    ) -> None:
        """Count a thing.

        And say
        so.
        """

    @made.command()
    def other() -> None:
        """Another one, without which there would be no name of a command to type."""

    reference = script("docs/commands.py")
    name, command = next(iter(reference.commands(typer.main.get_command(made), "x")))
    assert reference.section(name, command) == (
        "## x count\n\n    x count THING [OPTIONS]\n\nCount a thing.\n\nAnd say so.\n\n"
        "| argument or option | meaning | default |\n|---|---|---|\n| `THING` | A \\| thing. |  |\n"
        "| `--often N` | How often. | `3` |\n| `--where TEXT` | Where. |  |\n| `--loud` | Aloud. |  |\n"
    )


# --- docs/glossary.md -------------------------------------------------------------------------------------------------

GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")
EXPLAINED = re.findall(r"\*\*(.+?)\*\*", GLOSSARY)  # the words, bold
NAMES = re.findall(r"`(.+?)`", GLOSSARY)  # of fields and settings


def words_of_states() -> set[str]:
    """What the verdict can say of a policy, read from the code that says it."""
    code = ast.parse((PROJECT / "collapse_cli/findings/diagnosis/__init__.py").read_text(encoding="utf-8"))
    (state,) = (one for one in ast.walk(code) if isinstance(one, ast.FunctionDef) and one.name == "_state")
    returned = [one for one in ast.walk(state) if isinstance(one, ast.Return) and one.value is not None]
    constants = [one for found in returned for one in said_by(found.value)]
    assert len(constants) > 5
    return set(constants)


def said_by(value: ast.expr | None) -> list[str]:
    """The texts that an expression can be."""
    if isinstance(value, ast.IfExp):
        return said_by(value.body) + said_by(value.orelse)
    return [value.value] if isinstance(value, ast.Constant) and isinstance(value.value, str) else []


def test_every_policy_and_learner_is_explained() -> None:
    policies = [f"{rule}-P" for rule in SHARED] + [f"{KEEP_ROWS}N"] + list(ACCUMULATING)
    assert len(policies) == len(get_args(Rule))
    for name in [*policies, *FAMILIES]:
        assert f"`{name}`" in EXPLAINED, name


def test_every_word_of_a_verdict_is_explained() -> None:
    for word in (*words_of_states(), *TRENDS.values(), "early collapse", "general loss", "late collapse"):
        assert word in EXPLAINED, word


def test_every_headline_measure_is_explained() -> None:
    for described in map(families.of, FAMILIES):
        for headline in (described.headline, described.grid.headline if described.grid else None):
            assert headline is None or headline.name in NAMES, headline


def test_every_source_of_data_and_measure_of_a_known_truth_is_explained() -> None:
    for source in (*OWN, *NUMBERS, "wikitext2"):
        assert f"`{source}`" in EXPLAINED, source
    for measure in (*TRUTH, *STATEMENTS):
        assert measure.name in NAMES, measure.name


def test_every_growth_law_kind_of_stage_and_status_is_named() -> None:
    for name in (*(law.name for law in LAWS), *("generational", "mixture"), *STATES, "started"):
        assert name in NAMES, name


def test_every_entry_is_a_sentence_or_two_and_no_word_is_explained_twice() -> None:
    entries = [line for line in GLOSSARY.splitlines() if line.startswith("- ")]
    assert len(entries) > 80
    for entry in entries:
        assert re.match(r"- \*\*.+\*\*[^:]*: \S", entry), entry
        assert entry.endswith("."), entry
        assert len(re.findall(r"[.?!](?= [A-Z`*]|$)", entry)) <= 4, entry
    assert len(EXPLAINED) == len(set(EXPLAINED))


# --- docs/README.md ---------------------------------------------------------------------------------------------------


def test_every_document_stands_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in re.findall(r"\]\((.+?)\)", index)}
    there = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert there - linked == set()
    assert all((DOCS / link).exists() for link in linked), linked


def test_links_between_documents_lead_somewhere() -> None:
    """To a file that is there, and to a heading of it where one is named."""
    broken = []
    for page in (PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))):
        if page.parent.name == "prose":  # put into pages one folder above, and looked at there
            continue
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, heading = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists() or (heading and target.suffix == ".md" and heading not in anchors(target)):
                broken.append(f"{page.name}: {link}")
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The names under which the headings of a page can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


# --- README.md --------------------------------------------------------------------------------------------------------


def test_the_numbers_of_the_readme_are_those_of_its_run() -> None:
    """The table of `world` stands, made from the run folder, in docs/results/world.md; names of rows are shorter in the README."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| | real text | generation 0 |")[2].partition("\n\n")[0]
    shown = [row.partition("|")[2].partition("|")[2] for row in table.splitlines()[2:]]
    made = (DOCS / "results" / "world.md").read_text(encoding="utf-8")
    assert len(shown) >= 5
    assert [row for row in shown if f"`) |{row}\n" not in made] == []


def test_what_the_readme_quotes_was_written_by_these_models() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    quoted = re.findall(r"[\"“]([A-Z][^\"”]{20,}\.)[\"”]", readme)
    made = (DOCS / "results" / "world.md").read_text(encoding="utf-8")
    assert len(quoted) >= 2
    assert [text for text in quoted if text not in made] == []


def test_what_the_remedies_are_said_to_have_done_is_in_their_table() -> None:
    """docs/remedies.md quotes the multiples of the baseline's perplexity; docs/results/remedies.md is made from the run folders."""
    lines = [
        line
        for line in (DOCS / "remedies.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("- In the loop")
    ]
    quoted = [found for line in lines for found in re.findall(r"[×+-][\d.]+%? \([^()]* to [^()]*\)", line)]
    made = (DOCS / "results" / "remedies.md").read_text(encoding="utf-8")
    assert len(quoted) > 25
    assert [text for text in quoted if text not in made] == []
