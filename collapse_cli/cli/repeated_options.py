"""Commands whose options are given once each: of two values the parser would take the last, and drop the first in silence."""

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Any

import typer
from typer.core import TyperCommand

# what a newcomer means by two of them
TOGETHER = {"--seeds": "; several seeds are --seeds 0,1,2"}


class _Once(TyperCommand):
    """A command that refuses an option with a value which stands twice on its line, unless it may be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the parser does.

        Raises:
            UsageError: of the parser's own kind, for an option that is given twice.
        """
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(given).items():
            if times > 1 and not (getattr(option, "multiple", False) or getattr(option, "is_flag", False)):
                name = max(option.opts, key=len)
                if name.startswith("-"):
                    ctx.fail(f"{name} is given {_times(times)}; give one{TOGETHER.get(name, '')}")
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
