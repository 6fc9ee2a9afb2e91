"""The options of a magic that is followed by a statement: told apart before Python's own words are split like a shell's."""

from __future__ import annotations

import re
from typing import Any, Final

_WORD: Final = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|\S)+)""")


def split_options(parser: Any, line: str) -> tuple[str, str]:
    """The options at the start of a line, and the statement after them.

    Parameters
    ----------
    parser
        The argparse parser that knows the options.
    line
        The line of a magic.

    Returns
    -------
    tuple of str
        Options, and the rest as it stands. An unknown option is among the options: the parser says what is wrong with it.

    Examples
    --------
    >>> import argparse
    >>> parser = argparse.ArgumentParser()
    >>> _ = parser.add_argument("-o"), parser.add_argument("-q", action="store_true")
    >>> split_options(parser, "-q -o found train(model, epochs=-1)")
    ('-q -o found', 'train(model, epochs=-1)')
    """
    end = 0
    while (word := _WORD.match(line, end)) and word[1].startswith("-"):
        end = word.end()
        name, equals, _ = word[1].partition("=")
        action = parser._option_string_actions.get(name)  # noqa: SLF001 - argparse tells it nowhere else
        value = None if action is None or action.nargs == 0 or equals else _WORD.match(line, end)
        end = value.end() if value else end
    return line[:end].strip(), line[end:].strip()
