"""What tests of the report share: a page, its text, its figures and its structure, and texts that try to break it."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_report
from collapse_cli.report.loading import read, series_of

POLICIES = ("keep-0", "keep-10")


class Text(HTMLParser):
    """What a page says, and its elements' ids, headings and tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.captions = self.tables = 0
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag in ("script", "style", "h2"):
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)
        if self.open == ["h2"]:
            self.headings[-1] += data

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def figures_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    tree: dict[str, Any] = json.loads(match.group(1))
    return tree


def report(runs: Path, *names: str, forecast: bool = False) -> str:
    out = write_report([RunFolder(runs, name) for name in names], runs / "out" / "report.html", forecast=forecast)
    return out.read_text(encoding="utf-8")


def series(runs: Path, name: str) -> Sequence[Any]:
    return series_of(read([RunFolder(runs, name)]))


BENIGN = "a quiet text of ten plain words and no more tricks"


HOSTILE = {
    "script": "<script>window.pwned = 1</script>",
    "script end": "</script><script>window.pwned = 1</script>",
    "style end": "</style><style>body { display: none }</style>",
    "comment": "<!-- <script> --> ]]> <![CDATA[ <?php ?>",
    "attribute": '" onmouseover="window.pwned = 1" x=\'',
    "image": "<img src=x onerror=window.pwned=1><svg onload=window.pwned=1>",
    "link": "<a href='javascript:window.pwned=1'>javascript:window.pwned=1</a> [x](javascript:window.pwned=1)",
    "table": "</td></tr></table></details></section></main><h1>mine</h1>",
    "entities": "&lt;script&gt; &amp; &#x3c;script&#x3e; \\u003cscript\\u003e",
    "template": "{{figures}} {{plotly}} %{customdata} ${x} $\\frac{1}{2}$ {% raw %}",
    "ansi": "\x1b[31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 \x9b2J",
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x85\u2028\u2029\ufeff\u200b",
    "bidi": "\u202eevil\u202c \u2066x\u2069 \u061c",
    "surrogates": "\ud800 \udfff \ud83d x \ude00\ud83d",
    "zalgo": "a" + "\u0301" * 500,
    "long": "x" * 1_000_000,
    "long words": "ab " * 400_000,
}


class Structure(HTMLParser):
    """The elements of a page with their attributes' names, in order; `<mark>`, signs of white space and notes of a cut do not count."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, ...]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag} {name}={value}>"
            assert name != "href" or (value or "").startswith(("#", "data:,")), value
        if tag != "mark" and not {("class", "cut"), ("class", "ws")} & set(attrs) and tag != "small":
            self.tags.append((tag, *(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("mark", "span", "small"):
            self.tags.append(("/" + tag,))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data[:50]}")

    def handle_decl(self, decl: str) -> None:
        assert decl.lower() == "doctype html"

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data[:50])

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data[:50])

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(runs: Path, name: str, *, forecast: bool = False) -> str:
    out = write_report([RunFolder(runs, name)], runs / f"{name}.html", forecast=forecast)
    return out.read_bytes().decode("utf-8")
