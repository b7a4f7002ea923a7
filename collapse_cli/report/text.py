"""Text that nobody vouches for, made fit to show: generated samples, names from files, errors.

Three steps, always in this order: cut, make what is invisible visible, escape for where it goes.
"""

import html
import json
import re
import unicodedata
from typing import Any

LONGEST = 2_000  # characters of one text that are shown
SHORT = 120  # of a name
PHRASE = 3  # words that must come again in the same order to be marked
PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
# what reorders or hides the characters around it: directions, isolates, zero widths, line separators, tags
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\ufff0-\ufffb\U000e0000-\U000e0fff\ud800-\udfff]"
)
WORD = re.compile(r"\S+")
SPACES = 2  # in a row, from which on they are to be seen
BLANKS = re.compile(rf"\n+|\t| {{{SPACES},}}")


def visible(text: object, longest: int = LONGEST) -> str:
    """A text without anything that acts: cut, control characters as pictures, surrogates replaced.

    Newlines and tabs stay. ESC becomes ␛, so that terminal codes are read instead of obeyed; characters that turn the
    direction of writing or have no width become ⟨U+202E⟩; half a surrogate pair becomes the replacement character;
    more than three combining marks on a letter go.
    """
    whole = str(text)
    shown = HIDDEN.sub(_picture, whole[:longest])
    shown = _few_marks(shown)
    if len(whole) > longest:
        shown += f" … [cut: {len(whole) - longest:,} more characters]"
    return shown


def one_line(text: object, longest: int = SHORT) -> str:
    """A text for a name or a cell: as `visible`, with line breaks and tabs as pictures too, cut with an ellipsis."""
    whole = str(text)
    short = whole if len(whole) <= longest else whole[: longest - 1] + "…"
    shown = visible(short).replace("\n", "␊").replace("\t", "␉")
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def escaped(text: object, longest: int = LONGEST) -> str:
    """A text for HTML, between tags or within a quoted attribute."""
    return html.escape(visible(text, longest), quote=True)


def label(text: object) -> str:
    """A text for plotly, which reads a little HTML and `%{…}` out of every name: neither is left."""
    return html.escape(one_line(text, 60), quote=True).replace("%{", "%\u2009{").replace("$", "&#36;")


def cell(text: object, longest: int = SHORT) -> str:
    """A text for a cell or an item of a list in Markdown: no HTML, no link, no column of its own."""
    plain = re.sub(r"([\\`*_\[\]|~]|://)", r"\\\1", html.escape(one_line(text, longest), quote=False))
    return re.sub(r"^(\s*\d*)([.)#+=-]+)(?=\s|$)", r"\1\\\2", plain)  # nor a heading or a list


def embedded(data: Any) -> str:
    """JSON for a `<script type="application/json">`: nothing in it can end the element.

    Raises:
        ValueError: for a number that is not finite.
    """
    dumped = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 and the like are \\u escapes
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def marked(text: object, longest: int = LONGEST) -> tuple[str, float]:
    """A text as HTML with its repeated phrases in `<mark>`, and the share of words within them.

    A phrase is repeated when the same `PHRASE` words in a row occur at least twice in the part that is shown.
    """
    whole = str(text)
    shown = visible(whole[:longest], longest)
    words = list(WORD.finditer(shown))
    spots: dict[tuple[str, ...], list[int]] = {}
    for start in range(len(words) - PHRASE + 1):
        spots.setdefault(tuple(word.group() for word in words[start : start + PHRASE]), []).append(start)
    inside = sorted({at for starts in spots.values() if len(starts) > 1 for s in starts for at in range(s, s + PHRASE)})
    parts, end, index = [], 0, 0
    while index < len(inside):
        last = index
        while last + 1 < len(inside) and inside[last + 1] == inside[last] + 1:
            last += 1
        first, stop = words[inside[index]].start(), words[inside[last]].end()
        parts.append(html.escape(shown[end:first]))
        parts.append(f"<mark>{html.escape(shown[first:stop])}</mark>")
        end, index = stop, last + 1
    parts.append(html.escape(shown[end:]))
    if len(whole) > longest:
        parts.append(f' <span class="cut">[cut: {len(whole) - longest:,} more characters]</span>')
    return "".join(parts), len(inside) / len(words) if words else 0.0


def white(markup: str, *, ends: bool = False) -> str:
    """Text as HTML with its line breaks, tabs and runs of spaces to be seen: ⏎, ⇥, ␣; a run of empty lines is one.

    Args:
        ends: whether a single space at either end is to be seen too, as in a phrase.
    """
    if ends and markup[:1] == " ":
        markup = f" {markup}"
    if ends and markup[-1:] == " ":
        markup = f"{markup} "
    return BLANKS.sub(_blank, markup)


def _blank(match: re.Match[str]) -> str:
    many, kind = len(match.group()), match.group()[0]
    if kind == "\n":
        return f'<span class="ws">⏎{f"×{many}" if many > 2 else "⏎" * (many - 1)}</span>\n'
    sign = "⇥" if kind == "\t" else "␣"
    return f'<span class="ws">{sign * many if many <= 8 else f"{sign}×{many}"}</span>'


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return PICTURES.get(code) or f"⟨U+{code:04X}⟩"


def _few_marks(text: str) -> str:
    if text.isascii():
        return text
    kept, run = [], 0
    for letter in text:
        run = run + 1 if unicodedata.combining(letter) else 0
        if run <= 3:
            kept.append(letter)
    return "".join(kept)
