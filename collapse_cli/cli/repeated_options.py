"""Commands whose options are given once each, and not empty: of two values the parser would take the last, and drop the first in
silence; an empty one is a shell variable that is unset, and would be the folder one is in, or a name that nobody gave.
"""

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Any

import typer
from typer.core import TyperCommand

# what a newcomer means by two of them
TOGETHER = {"--seeds": "; several seeds are --seeds 0,1,2"}


class _Once(TyperCommand):
    """A command that refuses an option with a value which stands twice on its line, unless it may be repeated, and what is empty."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the parser does.

        Raises:
            UsageError: of the parser's own kind, for an option that is given twice, and for an argument or a value that is empty.
        """
        values, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(given).items():
            if times > 1 and not (getattr(option, "multiple", False) or getattr(option, "is_flag", False)):
                name = max(option.opts, key=len)
                if name.startswith("-"):
                    ctx.fail(f"{name} is given {_times(times)}; give one{TOGETHER.get(name, '')}")
        for parameter in self.params:
            value = values.get(parameter.name)
            each = value if isinstance(value, list | tuple) else (value,)
            if parameter.default != "" and any(isinstance(one, str) and not one.strip() for one in each):
                ctx.fail(f"{_said(parameter)} is empty; is a shell variable unset?")
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """A typer application of such commands, whose parsers are built at its first call and kept."""

    @cached_property
    def _parsers(self) -> Any:
        return typer.main.get_command(self)

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """Run a command line, as click's commands do."""
        return self._parsers(*arguments, **more)

    def command(self, *arguments: Any, **more: Any) -> Callable[[Any], Any]:
        return super().command(*arguments, **{"cls": _Once, **more})


def _times(number: int) -> str:
    return "twice" if number == 2 else f"{number} times"


def _said(parameter: Any) -> str:
    """An option or an argument as the help names it."""
    name = str(max(parameter.opts, key=len))
    return name if name.startswith("-") else str(parameter.metavar or name.upper())
