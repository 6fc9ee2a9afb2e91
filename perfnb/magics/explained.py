"""Magics whose arguments `%name?` explains: IPython's decorators, which have no types, put together once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from IPython.core import magic_arguments
from IPython.core.magic import line_magic

Method = TypeVar("Method", bound=Callable[..., Any])
given: Any = magic_arguments
argument: Any = given.argument


def explained(*arguments: Any, kind: Callable[[Any], Any] = line_magic) -> Callable[[Method], Method]:
    """A magic with these arguments, in the order in which its help lists them.

    Parameters
    ----------
    arguments
        Made by `argument`.
    kind
        What makes a method a magic: of a line, unless something else is given.
    """

    def made(method: Method) -> Method:
        magic = kind(method)
        for each in reversed(arguments):
            magic = each(magic)
        marked: Method = given.magic_arguments()(magic)
        return marked

    return made
