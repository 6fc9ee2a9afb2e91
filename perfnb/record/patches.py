"""Functions of torch that are watched by putting one of ours in their place, and put back only where ours is still on top."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Patch:
    """One function of a module or class, replaced by `make(original)` until `remove`.

    Where something else was put over ours meanwhile, ours stays below it: what `make` gives has to see on its own that the
    recording is over, and to call the original from then on. One more function round it all would cost every call.
    """

    def __init__(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._owner, self._name = owner, name
        self._original: Callable[..., Any] = getattr(owner, name)
        self._is_own = name in vars(owner)
        self._is_on = True
        replacement = functools.wraps(self._original)(make(self._original))
        self._replacement = replacement
        setattr(owner, name, replacement)

    def remove(self) -> None:
        """Put the original back; calling it again does nothing."""
        if not self._is_on:
            return
        self._is_on = False
        if vars(self._owner).get(self._name) is not self._replacement:
            return
        if self._is_own:
            setattr(self._owner, self._name, self._original)
        else:  # it was inherited: the class gets no copy of its own
            delattr(self._owner, self._name)
