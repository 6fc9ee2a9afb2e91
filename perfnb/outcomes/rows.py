"""Rows of the accuracy ledger: their types, their checksum, and the columns of the table that they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

TEXT, FLOAT, INT, BOOL = "string", "float64", "Int64", "boolean"

COLUMNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # which prediction, of what, made where
        "prediction_id": TEXT,
        "predicted_at": TEXT,  # UTC, ISO 8601
        "sha256": TEXT,  # of all that was written down before the change
        "version": TEXT,  # of perfnb
        "model": TEXT,  # with its version; empty where there is none
        "knobs": TEXT,  # joined by +
        "changes": TEXT,  # JSON: [{"knob", "before", "after"}]; of paths only that they are paths
        "workload": TEXT,  # as the user names it, else a digest of the config
        "machine": TEXT,  # a digest; empty where nothing is known of it
        "machines": INT,  # number of hosts
        "device": TEXT,
        "torch": TEXT,
        # what was predicted
        "metric": TEXT,
        "before": FLOAT,
        "after": FLOAT,
        "low": FLOAT,
        "high": FLOAT,
        "simulated": FLOAT,  # before a track record moved it
        "spread": FLOAT,
        "basis": TEXT,
        "assumptions": TEXT,
        "refused": TEXT,  # why nothing was predicted; empty where something was
        "shadow_after": FLOAT,  # what the model would have said had it not refused
        # what was found
        "found_at": TEXT,
        "actual_before": FLOAT,
        "actual": FLOAT,
        "actual_low": FLOAT,
        "actual_high": FLOAT,
        "steps_before": INT,
        "steps_after": INT,
        "paired": BOOL,
        "pressure_before": FLOAT,
        "pressure_after": FLOAT,
        "void": TEXT,  # why it is kept and not scored; empty where it is scored
        "inside": BOOL,
        "sign_ok": BOOL,
    }
)
"""Columns of the table `outcomes`, one row per prediction, and their types."""


class ChangeRow(msgspec.Struct, frozen=True):
    """One changed knob."""

    knob: str
    before: str | int | float | bool | None = None
    after: str | int | float | bool | None = None


class PredictionRow(msgspec.Struct, frozen=True):
    """What is written down before a change is made."""

    prediction_id: str
    predicted_at: str
    sha256: str
    version: str
    model: str
    changes: tuple[ChangeRow, ...]
    workload: str
    machine: str
    machines: int
    device: str
    torch: str
    metric: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    simulated: float | None
    spread: float | None
    basis: str
    assumptions: tuple[str, ...]
    refused: str
    shadow_after: float | None = None


class OutcomeRow(msgspec.Struct, frozen=True):
    """What was found after the change."""

    prediction_id: str
    prediction_sha256: str
    found_at: str
    actual_before: float
    actual: float
    actual_low: float
    actual_high: float
    steps_before: int
    steps_after: int
    paired: bool
    pressure_before: float | None
    pressure_after: float | None
    void: str
    inside: bool | None
    sign_ok: bool | None


def sealed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the SHA-256 of all its other values, so that a later change of any of them shows.

    Examples
    --------
    >>> row = sealed({"after": 5.0})
    >>> is_sealed(row), is_sealed({**row, "after": 4.0})
    (True, False)
    """
    return {**row, "sha256": _digest(row)}


def is_sealed(row: Mapping[str, Any]) -> bool:
    """Whether a row is as it was written."""
    return row.get("sha256") == _digest(row)


def parsed(line: bytes) -> PredictionRow | OutcomeRow | str:
    """The row of a line, or what is wrong with it; nothing in a line is evaluated."""
    try:
        raw = json.loads(line, parse_constant=_refused)
        if isinstance(raw, dict) and raw.get("row") == "outcome":
            return msgspec.convert(raw, OutcomeRow)
        made = msgspec.convert(raw, PredictionRow)
    except (ValueError, TypeError, RecursionError, OverflowError):  # msgspec.ValidationError is a ValueError
        return "no row of the accuracy ledger"
    return made if is_sealed(raw) else "changed after it was written"


def _digest(row: Mapping[str, Any]) -> str:
    told = {name: value for name, value in row.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def _refused(constant: str) -> float:
    message = f"{constant} is no JSON"
    raise ValueError(message)
