"""What a reader of one format gives: rows, config, and what it could not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perfnb.errors import LogFormatError
from perfnb.read.metric_rows import Rows
from perfnb.text import clean

_MOST_ENTRIES: Final = 2_000
_DEEPEST: Final = 4
_LONGEST_TEXT: Final = 2_000
_SHOWN: Final = 6


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """A log of one format.

    Attributes
    ----------
    rows
        Rows of the training, then those of system metrics if there are any.
    config
        The training's config.
    notes
        Sentences on what was left out or assumed.
    missing
        Signal to reason.
    """

    rows: list[Rows]
    config: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def plain_config(value: Any) -> dict[str, Any]:
    """A config of plain values: mappings, lists and scalars up to a depth and number, the rest left out.

    Examples
    --------
    >>> plain_config({"lr": 0.1, "model": {"layers": (2, 3)}, "loss": object()})
    {'lr': 0.1, 'model': {'layers': [2, 3]}}
    """
    left = [_MOST_ENTRIES]
    made = _plain(value, _DEEPEST, left)
    return made if isinstance(made, dict) else {}


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    if depth and isinstance(value, Mapping):
        items = ((str(key), _plain(item, depth - 1, left)) for key, item in value.items() if left[0] > 0)
        return {key: item for key, item in items if item is not _LEFT_OUT}
    if depth and isinstance(value, (list, tuple)):
        return [item for item in (_plain(item, depth - 1, left) for item in value[:_MOST_ENTRIES]) if item is not _LEFT_OUT]
    return _LEFT_OUT


_LEFT_OUT: Final = object()


def one_of(found: Iterable[Path], what: str, where: str) -> Path:
    """The only one of what was found.

    Raises
    ------
    LogFormatError
        If there are several: they are named.
    """
    ordered = sorted(found)
    if len(ordered) == 1:
        return ordered[0]
    names = ", ".join(clean(path.name, 80) for path in ordered[:_SHOWN])
    message = f"{where} holds {len(ordered)} {what} ({names}{', ...' if len(ordered) > _SHOWN else ''}): name one of them"
    raise LogFormatError(message)
