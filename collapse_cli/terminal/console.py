"""What a person sees: live progress, or plain lines where the output is no terminal, and tables."""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from collapse_cli.metrics import NO_WORDS
from collapse_cli.metrics.formatting import perplexity as perplexity
from collapse_cli.metrics.words import SAME
from collapse_cli.terminal.text import Table, line, safe, short

if TYPE_CHECKING:
    from collapse_cli.metrics.intervals import Interval

PACKAGE = "collapse_cli"  # the name its loggers begin with
MOST_ROWS = 25  # generations of a table; of more, some
QUIET_SECONDS = 60.0  # between two lines about the same stage where there is no terminal


class Progressing:
    """Shows a plan at work: a bar for each stage at work, one for the plan, and a line for each generation measured."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.done = self.cached = 0
        self.left: float | None = None
        self._at_work: dict[str, _AtWork] = {}
        self._live = console.is_terminal
        self._notes = _Notes(self)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[speed]}"),
            TextColumn("[cyan]{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._plan_bar = self._bars.add_task("plan", total=max(1, total), speed=f"0/{total} stages", left="")

    def __enter__(self) -> "Progressing":
        logging.getLogger(PACKAGE).addHandler(self._notes)
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger(PACKAGE).removeHandler(self._notes)
        if self._live:
            self._bars.stop()

    def line(self, text: str) -> None:
        """A line that stays; nothing in it is taken for markup."""
        line(self.console, text)

    def started(self, kind: str, where: str) -> None:
        label = f"{kind:<7} {where}"
        bar = self._bars.add_task(safe(label), total=1, speed="", left="")
        self._at_work[label] = _AtWork(bar, time.monotonic(), time.monotonic())

    def progress(self, kind: str, where: str, done: int, total: int, unit: str) -> None:
        label = f"{kind:<7} {where}"
        stage = self._at_work[label]
        took = time.monotonic() - stage.began
        speed = f"{done / took:,.0f} {unit}/s" if took > 0.2 else ""
        left = f"{duration(took / done * (total - done))} left" if done and took > 0.2 else ""
        self._bars.update(stage.bar, completed=done, total=total, speed=speed, left=left)
        if not self._live and time.monotonic() - stage.said > QUIET_SECONDS:
            stage.said = time.monotonic()
            self.line(f"{self._count()} {label}: {done / total:.0%}, {speed}, {left}")

    def finished(self, kind: str, where: str, *, seconds: float, cached: bool, note: str) -> None:
        self.done += 1
        self.cached += cached
        left = f"{duration(self.left)} left" if self.left is not None and self.done < self.total else ""
        self._bars.update(self._plan_bar, completed=self.done, speed=f"{self.done}/{self.total} stages", left=left)
        if (stage := self._at_work.pop(f"{kind:<7} {where}", None)) is not None:
            self._bars.remove_task(stage.bar)
        if not cached and (kind in ("eval", "block") or not self._live):
            text = f"{self._count()} {kind:<7} {where}  {duration(seconds):>6}"
            self.line("  ".join(part for part in (text, note, "" if self._live else left) if part))

    def waiting(self, where: str) -> None:
        self.line(f"{self._count()} waiting for another process: {where}")

    def _count(self) -> str:
        return f"[{self.done:>{len(str(self.total))}}/{self.total}]"


@dataclass
class _AtWork:
    """A stage at work: its bar, when it began, and when a line was last printed about it."""

    bar: TaskID
    began: float
    said: float


class _Notes(logging.Handler):
    """What the engine has to say in the middle of a stage becomes a line of its own."""

    def __init__(self, shown: Progressing) -> None:
        super().__init__(logging.WARNING)
        self.shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        self.shown.line(f"note: {record.getMessage()}")


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 35 s, 12 min, 3.5 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def number(count: float) -> str:
    """A large number with a prefix: 1.2 M, 3.4 P."""
    for prefix in ("", " k", " M", " G", " T", " P"):
        if count < 1000:
            return f"{count:.3g}{prefix}"
        count /= 1000
    return f"{count:.3g} E"


def word_perplexity(value: float | None) -> str:
    """A word perplexity, or why there is none."""
    return NO_WORDS if value is None else perplexity(value)


def change(value: float, first: float) -> str:
    """Relative to generation 0: +12%, or ×20.8 where percent grow unwieldy."""
    ratio = value / first
    return f"×{ratio:.3g}" if ratio >= 10 else f"{ratio - 1:+.0%}".replace("-0%", "+0%")


def with_interval(value: "Interval") -> str:
    """A perplexity with its interval, where it has one: 871 (264–3,870); 413 (same for all seeds)."""
    if value.low is None or value.high is None:
        return perplexity(value.mean)
    if value.exact:
        return f"{perplexity(value.mean)} ({SAME})"
    return f"{perplexity(value.mean)} ({perplexity(value.low)}–{perplexity(value.high)})"


def with_factor(value: "Interval") -> str:
    """The same in less room, of an interval on the log scale: 871 ×÷4.43 is from 871 / 4.43 to 871 × 4.43."""
    if value.low is None or value.high is None or value.low <= 0 or value.exact:
        return with_interval(value)
    factor = math.sqrt(value.high / value.low) if value.high / value.low < math.inf else math.inf
    if factor < 1.005:  # which three digits would make 1.00, as if there were no interval
        return f"{perplexity(value.mean)} ×÷{1 + float(f'{factor - 1:.2g}'):.9g}"
    return f"{perplexity(value.mean)} ×÷{f'{factor:#.3g}' if factor < 1000 else perplexity(factor)}".rstrip(".")


def perplexity_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Perplexity by generation and policy with the change from generation 0.

    Of several seeds the geometric mean with the 95% t interval of the mean logarithm, and the geometric mean of their
    changes (as in the verdict); of one the number, and that it has no interval. Numbers whose rows carry warnings are marked.
    """
    from collapse_cli.metrics.intervals import over_seeds

    policies = list(dict.fromkeys(row["policy"] for row in rows))
    seeds = sorted({row["seed"] for row in rows})
    said = f"seed {seeds[0]}; one seed: no interval"
    if len(seeds) > 1:
        said = f"seeds {', '.join(map(str, seeds))}: geometric means"
    table = Table(f"{title} ({said})")
    table.add_column("gen.", justify="right")
    for policy in policies:
        table.add_column(short(policy), justify="right")
    found: dict[tuple[str, int], dict[int, float]] = {}
    doubtful: set[tuple[str, int]] = set()
    for row in rows:
        found.setdefault((row["policy"], row["generation"]), {})[row["seed"]] = row["perplexity"]
        if row["warnings"]:
            doubtful.add((row["policy"], row["generation"]))
    whole = {where: values for where, values in found.items() if len(values) == len(seeds)}
    for generation in sorted({row["generation"] for row in rows}):
        cells = []
        for policy in policies:
            values, first = whole.get((policy, generation)), whole.get((policy, 0))
            if values is None:
                cells.append("[dim]…[/]")
                continue
            cell = with_factor(over_seeds("perplexity", list(values.values())))
            known = first is not None and sys.float_info.max not in (*values.values(), *first.values())
            if generation and first is not None and known:
                logs = [math.log(value) - math.log(first[seed]) for seed, value in values.items()]
                cell += f" [dim]{change(math.exp(sum(logs) / len(logs)), 1.0):>6}[/]"
            cells.append(cell + (" [bold yellow]![/]" if (policy, generation) in doubtful else ""))
        table.add_row(str(generation), *cells)
    captions = ["×÷: the 95% interval, on the log scale: 50 ×÷2 is from 25 to 100"] if len(seeds) > 1 else []
    if doubtful:
        captions.append("[bold yellow]![/] there are warnings about the rows behind this number")
    table.caption = "\n".join(captions) or None
    return table


def some(generations: Sequence[int]) -> list[int]:
    """All of a few generations; of many 0, 1, 2, 5, 10, 20 … and the last."""
    if len(generations) <= MOST_ROWS:
        return list(generations)
    round_ones = {digit * 10**power for power in range(9) for digit in (1, 2, 5)} | {0, generations[-1]}
    return [generation for generation in generations if generation in round_ones]


def row_warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings that rows of `metrics.jsonl` carry, each with where."""
    return [
        f"{row['policy']}, seed {row['seed']}, generation {row['generation']}: {warning}"
        for row in rows
        for warning in row["warnings"]
    ]


def evaluation_table(rows: Sequence[Mapping[str, Any]], run: str) -> Table:
    """Perplexity (or loss) as logged and as evaluated again, and of text word perplexity and bits per byte."""
    measure = rows[0]["measure"] if rows else "perplexity"
    text = measure == "perplexity"
    title = f"{short(run)}, evaluated again" + ("" if text else f": {measure.replace('_', ' ')}")
    table = Table(title, keys=3)
    names = ("policy", "seed", "gen", "logged", "again", "differ", *(("word ppl", "bits/byte") if text else ()))
    for column in names:
        table.add_column(column, justify="left" if column == "policy" else "right")
    few = set(some(sorted({row["generation"] for row in rows})))
    for row in (row for row in rows if row["generation"] in few):
        where = (short(row["policy"]), str(row["seed"]), str(row["generation"]))
        logged = "" if row["logged"] is None else f"{row['logged']:,.4f}"
        if row["pruned"]:
            table.add_row(*where, logged, "[dim]pruned[/]", *[""] * (len(names) - 5))
            continue
        difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
        of_text = (
            ("–" if (said := row["word_perplexity"]) is None else perplexity(said), f"{row['bits_per_byte']:.4f}")
            if text
            else ()
        )
        table.add_row(*where, logged, f"{row[measure]:,.4f}", difference, *of_text)
    if text and any(row.get("word_perplexity", 0.0) is None for row in rows):
        table.caption = f"–: word perplexity is {NO_WORDS}"
    return table


def protocols(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The protocols behind rows of `metrics.jsonl`, each in a line."""
    return list(dict.fromkeys(protocol(row["protocol"], row["predicted_tokens"]) for row in rows if "protocol" in row))


def protocol(said: Mapping[str, Any], predicted: int) -> str:
    """What a perplexity means: protocol, context, stride, tokens, BOS policy; and what an unseen token counts as."""
    lines = "a BOS token before every line" if said.get("line_bos") else "no BOS tokens"
    if said.get("protocol") != "sliding":
        how = f"blocks of {said.get('context', '?')} tokens, the first of each not predicted"
    else:
        how = f"a sliding window of {said.get('context', '?')} tokens moved by {said.get('stride', '?')}"
    dtype = said.get("dtype", "float32")
    arithmetic = "" if dtype in ("float32", "float64") else f"; in {short(dtype)}"
    floor = f"; {floored(said['floor'])}" if "floor" in said else ""
    return f"token-weighted over {predicted:,} predicted tokens; {how}; {lines}{arithmetic}{floor}"


def floored(floor: float) -> str:
    """What a perplexity of n-grams depends on beside the text."""
    return f"a token that the model gives no probability counts as {floor:g} (ngram.floor), and the perplexity depends on that"


def facts_table(facts: Mapping[str, str], title: str) -> Table:
    """Names and what they are."""
    table = Table(safe(title), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for what, value in facts.items():
        table.add_row(short(what), safe(value))
    return table
