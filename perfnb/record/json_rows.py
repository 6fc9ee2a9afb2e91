"""Rows and headers as JSON: what JSON cannot hold becomes plain, and nothing in a value makes writing fail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

NOT_A_NUMBER, INFINITE, NEGATIVE_INFINITE = "NaN", "Infinity", "-Infinity"
"""How the floats stand that JSON lacks; readers turn them back."""

_LONGEST_TEXT: Final = 200  # of a value that is no number and no text of its own
_DEEPEST: Final = 20  # of values in values
_PLAIN: Final = frozenset({int, str, bool, type(None)})
_ENCODER: Final = msgspec.json.Encoder()


def lines(rows: Iterable[Sequence[Any]]) -> tuple[bytes, int, int]:
    r"""Rows as JSON arrays, one per line; the number of rows in them, and of those that could not be written.

    Examples
    --------
    >>> lines([(1, "loss", float("nan")), (2, "loss", np.float32(0.5))])
    (b'[1,"loss","NaN"]\n[2,"loss",0.5]\n', 2, 0)
    """
    given = [row if _is_plain(row) else _plain_row(row) for row in rows]
    ready = [row for row in given if row is not None]
    lost = len(given) - len(ready)
    try:
        return _ENCODER.encode_lines(ready), len(ready), lost
    except (TypeError, ValueError, OverflowError):  # a lone surrogate in a text
        whole = [row for row in map(_plain_row, ready) if row is not None]
        return _ENCODER.encode_lines(whole), len(whole), lost + len(ready) - len(whole)


def document(value: Mapping[str, Any]) -> bytes:
    """A header as JSON."""
    return _ENCODER.encode(json_value(value))


def json_value(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it; what it cannot becomes its text, shortened.

    Arrays and tensors are not looked into: their values may lie on a device, and reading one would wait for it.

    Examples
    --------
    >>> json_value({"betas": (0.9, float("inf")), "size": np.int64(7)})
    {'betas': [0.9, 'Infinity'], 'size': 7}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _writable(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else _float(float(value))
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return _text(value)
    if depth >= _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {str(json_value(key, depth + 1)): json_value(item, depth + 1) for key, item in value.items()}
    return [json_value(item, depth + 1) for item in value]


def _is_plain(row: Sequence[Any]) -> bool:
    try:
        for value in row:
            kind = type(value)
            if kind is float:
                if value - value != 0.0:  # neither NaN nor an infinity
                    return False
            elif kind not in _PLAIN:
                return False
    except TypeError:  # no row
        return False
    return True


def _plain_row(row: Sequence[Any]) -> list[Any] | None:
    try:
        return [json_value(value) for value in row]
    except Exception:  # noqa: BLE001 - a value's own code may raise anything, and training must not see it
        return None


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return NOT_A_NUMBER if math.isnan(value) else INFINITE if value > 0 else NEGATIVE_INFINITE


def _writable(text: str) -> str:
    return str.encode(text, "utf-8", "replace").decode("utf-8")  # a lone surrogate is no text


def _text(value: Any) -> str:
    kind = type(value)
    if not hasattr(kind, "__array__"):
        try:
            return _writable(str(value)[:_LONGEST_TEXT])
        except Exception:  # noqa: BLE001, S110 - as above
            pass
    return _writable(f"<{kind.__module__}.{kind.__qualname__}>")
