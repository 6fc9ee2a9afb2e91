"""What the latest changes of configs in memory replaced: undo gives back what was there, not only what means the same."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from perfnb.config.tree import ABSENT, DEEPEST, Path, children, same

MOST_REMEMBERED: Final = 64
"""Changes that are remembered; older ones are taken back by writing the value that the knob had."""


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    after: Any
    knobs: Mapping[str, Any]
    edits: Mapping[Path, Any]


_ENTRIES: Final[deque[_Entry]] = deque(maxlen=MOST_REMEMBERED)
_LOCK: Final = threading.Lock()


def remember(before: Any, after: Any, knobs: Mapping[str, Any]) -> None:
    """Keep what leads from a config back to the one that it was made from.

    Parameters
    ----------
    before, after
        The config before and after the change.
    knobs
        Knob to the value that was applied.
    """
    with _LOCK:
        _ENTRIES.append(_Entry(after, dict(knobs), differences(after, before)))


def way_back(config: Any, knobs: Mapping[str, Any]) -> Mapping[Path, Any] | None:
    """Edits that take a change of a config back; None where it is not remembered.

    Parameters
    ----------
    config
        The config that the change gave, or one that is equal to it.
    knobs
        Knob to the value that was applied.
    """
    with _LOCK:
        entries = [entry for entry in reversed(_ENTRIES) if same(entry.knobs, knobs)]
    own = [entry for entry in entries if entry.after is config]
    equal = own or [entry for entry in entries if not differences(entry.after, config)]
    return equal[0].edits if equal else None


def differences(one: Any, other: Any, depth: int = 0) -> dict[Path, Any]:
    """Path to the other's value wherever two configs differ; `ABSENT` where the other has none.

    Examples
    --------
    >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    {('a', 'c'): 3}
    """
    here, there = _settable(one), _settable(other)
    if one is other:
        return {}
    alike = type(one) is type(other) or (isinstance(one, Mapping) and isinstance(other, Mapping))
    if here is None or there is None or not alike or depth > DEEPEST:
        return {} if same(one, other) else {(): other}
    found: dict[Path, Any] = {}
    for name in dict.fromkeys([*here, *there]):
        if name not in there or name not in here:
            found[(name,)] = there.get(name, ABSENT)
        else:
            found |= {(name, *path): value for path, value in differences(here[name], there[name], depth + 1).items()}
    return found


def _settable(node: Any) -> Mapping[Any, Any] | None:
    """What a node holds by name, without what a dataclass works out by itself."""
    names = children(node)
    if names is None or not dataclasses.is_dataclass(node):
        return names
    return {field.name: names[field.name] for field in dataclasses.fields(node) if field.init and field.name in names}
