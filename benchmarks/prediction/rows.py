"""The table that everything is scored from: one row per pair, with what every way of predicting said of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from benchmarks.prediction.baselines import baselines
from benchmarks.prediction.stored import StoredPair
from perfnb.outcomes.calibrate import calibration
from perfnb.outcomes.ledger import as_csv
from perfnb.outcomes.rows import BOOL, COLUMNS, FLOAT, TEXT

BASELINES: Final = ("no_change", "naive", "bound", "line", "fixed_15", "fixed_20", "fixed_25")
OWN_COLUMNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pair": TEXT,
        "split": TEXT,
        "kind": TEXT,
        "data": TEXT,
        "start": TEXT,  # of several pairs: the training that all of them start from
        "is_quiet": BOOL,
        "foreign_cores": FLOAT,
        "yielding_cores": FLOAT,
        "needs": TEXT,  # of a refusal: what would answer the question
        **dict.fromkeys(BASELINES, FLOAT),
    }
)
"""Beside the columns of the accuracy ledger."""

ALL_COLUMNS: Final[Mapping[str, str]] = MappingProxyType({**OWN_COLUMNS, **COLUMNS})
_TRUTHS: Final = {"True": True, "False": False}


def rows_of(pairs: Iterable[StoredPair]) -> pd.DataFrame:
    """One row per pair: `ALL_COLUMNS`, times in microseconds."""
    return _frame([_row(pair) for pair in pairs])


def _row(pair: StoredPair) -> dict[str, Any]:
    own = {
        "pair": pair.case.id,
        "split": pair.case.split,
        "kind": pair.case.kind,
        "data": pair.case.data,
        "start": pair.case.group,
        "is_quiet": pair.is_quiet,
        "foreign_cores": round(pair.foreign_cores, 4),
        "yielding_cores": round(pair.yielding_cores, 4),
        "needs": pair.told["needs"],
    }
    told = {name: round(value, 1) for name, value in baselines(pair).items()}
    return {**own, **told, **{name: pair.row.get(name) for name in COLUMNS}}


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write the table as CSV, seen whole or not at all."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(ALL_COLUMNS)
    for row in rows[list(ALL_COLUMNS)].itertuples(index=False):
        writer.writerow(["" if pd.isna(value) else value for value in row])
    part = path.with_name(f".{path.name}.part")
    part.write_text(out.getvalue(), encoding="utf-8")
    part.replace(path)


def read_rows(path: Path) -> pd.DataFrame:
    """The table that `write_rows` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return _frame([{name: _read(value, ALL_COLUMNS[name]) for name, value in row.items()} for row in csv.DictReader(file)])


def _read(value: str, kind: str) -> Any:
    if value == "" and kind != TEXT:
        return None
    return _TRUTHS[value] if kind == BOOL else value if kind == TEXT else float(value)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=kind) for name, kind in ALL_COLUMNS.items()})
    texts = [name for name, kind in ALL_COLUMNS.items() if kind == TEXT]
    return frame.fillna(dict.fromkeys(texts, "")).sort_values("pair", kind="stable", ignore_index=True)


def is_scored(rows: pd.DataFrame) -> pd.Series:
    """Whether a prediction was made and its outcome counts."""
    return rows["refused"].eq("") & rows["void"].eq("") & rows["actual"].notna()


def calibrated_without_own_workload(rows: pd.DataFrame) -> pd.DataFrame:
    """The same predictions with the intervals that the other workloads' pairs give them: no workload helps to score itself.

    Parameters
    ----------
    rows
        Of both sets; those of development, on which the models were looked at and whose models may be older, calibrate nothing.

    Returns
    -------
    pandas.DataFrame
        The scored predictions, with after, low, high, basis and inside as they would be stated by a perfnb that ships all
        pairs but those of the same workload.
    """
    made = []
    record = rows[rows["split"].eq("scored")]
    for workload, own in rows[is_scored(rows)].groupby("workload"):
        known = calibration(record[record["workload"].ne(workload)].assign(is_own=False))
        for row in own.to_dict("records"):
            found = known.interval(row["simulated"], row["spread"], row["spread"], model=row["model"], knob=row["knobs"])
            if found.basis == "prior":  # its two sides may differ, which the ledger does not hold
                made.append({**row, "basis": "prior"})
                continue
            inside = found.low <= row["actual"] <= found.high
            made.append({**row, **found._asdict(), "inside": inside})
    return pd.DataFrame(made, columns=[*rows.columns])


def write_shipped(path: Path, rows: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Write the track record that perfnb ships: of the scored set, every prediction that counts and whose machine was quiet.

    The page that says how right perfnb is calibrates without the workload that it scores; a user's jobs are other workloads
    than all of these.
    """
    told = (
        "Outcomes of predictions made before the change was tried: benchmarks/prediction, scored workloads.\n"
        f"Recorded {', '.join(about['dates'])}, commit {', '.join(about['commits'])}, on a CPU.\n"
        "How right they were: docs/accuracy.md."
    )
    part = path.with_name(f".{path.name}.part")
    shipped = rows[is_scored(rows) & rows["is_quiet"].astype(bool) & rows["split"].eq("scored")]
    part.write_text(as_csv(shipped.assign(is_own=False), told), encoding="utf-8")
    part.replace(path)


def provenance_of(pairs: Iterable[StoredPair]) -> dict[str, Any]:
    """What all pairs have in common: commits, dates, versions, machine."""
    found = [pair.told["provenance"] for pair in pairs]
    return {
        "commits": sorted({each["commit"] for each in found}),
        "dates": sorted({each["recorded_at"] for each in found}),
        "versions": json.loads(max({json.dumps(each["versions"], sort_keys=True) for each in found})),
        "machine": json.loads(max({json.dumps(each["machine"], sort_keys=True) for each in found})),
        "minutes": round(sum(each["seconds"] for each in found) / 60),
    }
