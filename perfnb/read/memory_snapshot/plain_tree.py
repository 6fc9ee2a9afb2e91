"""Plain data as a tree that can be walked: nothing holds itself, and it is neither too deep nor, with shared parts, too much."""

from __future__ import annotations

from typing import Any, Final

from perfnb.read.memory_snapshot.pickle_scan import refuse

_MOST_LAYOUTS: Final = 64
_CONTAINERS: Final = frozenset({dict, list, tuple})


class PlainTree:
    """What was learned of a value while it was looked through.

    Parameters
    ----------
    most_levels
        Containers inside one another.
    most_values
        Values, where what is shared counts each time that it is met.
    name
        What to call the value in errors.
    """

    def __init__(self, most_levels: int, most_values: int, name: str) -> None:
        self._most_levels, self._most_values, self._name = most_levels, most_values, name
        self._sizes: dict[int, int] = {}  # of each container that was looked through: the values in it
        self._heights: dict[int, int] = {}
        self._layouts: set[tuple[Any, ...]] = set()  # keys of dictionaries that are known to be fine

    def check(self, value: Any) -> None:
        """Look through all of it, each container once and without recursion; raises `UnsafePickle`."""
        entered: set[int] = set()  # containers on the way from the root to the present one
        stack = [value] if type(value) in _CONTAINERS else []
        while stack:
            node = stack[-1]
            place = id(node)
            if place in self._sizes:
                stack.pop()
                continue
            children = [child for child in (node.values() if type(node) is dict else node) if type(child) in _CONTAINERS]
            waiting = self._not_yet_known(children)
            if waiting:
                entered.add(place)
                if not entered.isdisjoint(waiting):
                    refuse(self._name, "a value holds itself")
                stack.extend(waiting.values())
                continue
            self._learn(node, children)
            entered.discard(place)
            stack.pop()

    def _not_yet_known(self, children: list[Any]) -> dict[int, Any]:
        """Containers to be looked through first; those that hold none themselves are done at once, as most are."""
        waiting = {}
        for child in children:
            key = id(child)
            if key in self._sizes or key in waiting:
                continue
            if _CONTAINERS.isdisjoint(map(type, child.values() if type(child) is dict else child)):
                self._learn(child, [])
            else:
                waiting[key] = child
        return waiting

    def _learn(self, node: Any, children: list[Any]) -> None:
        if type(node) is dict:
            self._check_keys(tuple(node))
        size, height = 1 + len(node), 1
        if children:
            held = list(map(id, children))
            size += sum(map(self._sizes.__getitem__, held))
            height += max(map(self._heights.__getitem__, held))
        if height > self._most_levels:
            refuse(self._name, f"is over {self._most_levels} levels deep, the limit")
        if size > self._most_values:
            refuse(self._name, f"is over {self._most_values:,} values, the limit; what is shared counts each time")
        self._sizes[id(node)], self._heights[id(node)] = size, height

    def _check_keys(self, layout: tuple[Any, ...]) -> None:
        """Refuse keys that are neither text nor a whole number; few layouts are remembered, so that none can collide."""
        if layout not in self._layouts:
            if any(type(key) not in (str, int) for key in layout):
                refuse(self._name, "a dictionary has a key that is neither text nor a whole number")
            if len(self._layouts) < _MOST_LAYOUTS:
                self._layouts.add(layout)
