"""The accuracy ledger as a table: the rows that perfnb ships and the user's own, each prediction with its outcome."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from typing import Any, Final

import msgspec
import pandas as pd

from perfnb import text
from perfnb.errors import OutcomesError
from perfnb.outcomes.files import ledger_folder, stored_lines
from perfnb.outcomes.rows import BOOL, COLUMNS, FLOAT, INT, OutcomeRow, PredictionRow, parsed

SHIPPED: Final = "outcomes.csv"
"""Beside the package: rows of the prediction benchmark, after lines that start with # and say where they come from."""

_TRUTHS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """The accuracy ledger.

    Attributes
    ----------
    rows
        One row per prediction with the columns of `perfnb.outcomes.rows.COLUMNS`, and is_own: whether it is from the user's
        folder. What was found is NA where no outcome was recorded yet.
    notes
        Sentences on what was skipped.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...] = ()


def read_ledger(folder: str | os.PathLike[str] | None = None, *, shipped: bool = True) -> Ledger:
    """The ledger: what perfnb ships, and all that was written to a folder by whatever number of writers.

    Of several outcomes of one prediction the first that can be scored counts. Rows that are torn, damaged or were changed
    after they were written are skipped and named in the notes.

    Parameters
    ----------
    folder
        The user's or the team's folder; see `ledger_folder`.
    shipped
        Whether the rows that perfnb ships are among them.

    Returns
    -------
    Ledger
        Its rows in the order of their predictions, shipped ones first.

    Raises
    ------
    OutcomesError
        If the folder cannot be read.
    """
    predictions: dict[str, PredictionRow] = {}
    found: dict[str, list[OutcomeRow]] = {}
    skipped: dict[tuple[str, str], int] = {}
    notes = []
    for file, line in stored_lines(ledger_folder(folder)):
        if isinstance(line, str):
            notes.append(f"{file}: {line}")
            continue
        row = parsed(line)
        if isinstance(row, str):
            skipped[file, row] = skipped.get((file, row), 0) + 1
        elif isinstance(row, OutcomeRow):
            found.setdefault(row.prediction_id, []).append(row)
        elif predictions.setdefault(row.prediction_id, row).sha256 != row.sha256:
            skipped[file, "another prediction of the same number"] = 1
    notes += [f"{file}: {text.count(count, 'line')} skipped: {reason}" for (file, reason), count in skipped.items()]
    lost = sum(not _fits(predictions.get(each.prediction_id), each) for rows in found.values() for each in rows)
    if lost:
        notes.append(f"{text.count(lost, 'outcome')} skipped: the prediction is not there, or is another")
    own = [
        _record(row, _first([each for each in found.get(row.prediction_id, ()) if _fits(row, each)]))
        for row in sorted(predictions.values(), key=lambda row: (row.predicted_at, row.prediction_id))
    ]
    rows = _frame(own, is_own=True)
    given = shipped_ledger().rows if shipped else rows.iloc[:0]
    return Ledger(
        pd.concat([given, rows], ignore_index=True) if len(given) and len(rows) else given if len(given) else rows, tuple(notes)
    )


def shipped_ledger() -> Ledger:
    """What perfnb ships: pairs of its own benchmark.

    Raises
    ------
    OutcomesError
        If the file is of another version.
    """
    return Ledger(_frame(_shipped(), is_own=False))


def as_csv(rows: pd.DataFrame, provenance: str) -> str:
    """Text of the file that perfnb ships: lines that say where the rows come from, a header, and the rows.

    Parameters
    ----------
    rows
        Rows of a ledger.
    provenance
        Machine, date and program that they come from.
    """
    out = StringIO()
    out.writelines(f"# {text.clean(line)}\n" for line in provenance.splitlines())
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows[list(COLUMNS)].itertuples(index=False):
        writer.writerow([_written(value, kind) for value, kind in zip(row, COLUMNS.values(), strict=True)])
    return out.getvalue()


def _shipped() -> list[dict[str, Any]]:
    lines = files("perfnb").joinpath(SHIPPED).read_text(encoding="utf-8").splitlines(keepends=True)
    start = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    rows = list(csv.DictReader(lines[start:]))
    for row in rows:
        if set(row) != set(COLUMNS):
            message = f"{SHIPPED} of perfnb has other columns than this version: reinstall perfnb"
            raise OutcomesError(message)
    return [{name: _read(value, COLUMNS[name]) for name, value in row.items()} for row in rows]


def _read(value: str, kind: str) -> Any:
    if kind in (FLOAT, INT, BOOL) and value == "":
        return None
    return float(value) if kind == FLOAT else int(value) if kind == INT else _TRUTHS[value] if kind == BOOL else value


def _written(value: Any, kind: str) -> str:
    if pd.isna(value):
        return ""
    return repr(float(value)) if kind == FLOAT else str(bool(value)).lower() if kind == BOOL else str(value)


def _fits(prediction: PredictionRow | None, outcome: OutcomeRow) -> bool:
    return prediction is not None and prediction.sha256 == outcome.prediction_sha256


def _first(outcomes: Iterable[OutcomeRow]) -> OutcomeRow | None:
    """The first that can be scored, so that nobody measures until the answer pleases; else the first."""
    ordered = sorted(outcomes, key=lambda each: (bool(each.void), each.found_at))
    return ordered[0] if ordered else None


def _record(prediction: PredictionRow, outcome: OutcomeRow | None) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.structs.asdict(prediction)
    told["knobs"] = "+".join(sorted(change.knob for change in prediction.changes))
    told["changes"] = msgspec.json.encode(prediction.changes).decode()
    told["assumptions"] = "; ".join(prediction.assumptions)
    found: Mapping[str, Any] = {} if outcome is None else msgspec.structs.asdict(outcome)
    return told | {name: value for name, value in found.items() if name in COLUMNS}


def _frame(rows: list[dict[str, Any]], *, is_own: bool) -> pd.DataFrame:
    frame = pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=kind) for name, kind in COLUMNS.items()})
    return frame.assign(is_own=pd.Series(is_own, index=frame.index, dtype="bool"))
