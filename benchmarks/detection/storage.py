"""One compact file per case: the rows that perfnb recorded, column by column in whole nanoseconds, and what belongs to them.

A column is written as the shortest of these, each of which gives back the very same values:

======== ================================================================
"same"   one value that all rows have
"whole"  integers as differences to the row before ("by" rows before)
"list"   the values themselves
======== ================================================================
"""

from __future__ import annotations

import json
import lzma
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.detection.case import Case, Measured, Truth
from perfnb.read.recorded import RankRecording, run_of
from perfnb.record.rows import COLUMNS
from perfnb.record.run_folder import END, HEADER, ROWS
from perfnb.run import Run

FORMAT: Final = 1
SUFFIX: Final = ".json.xz"
FAILED: Final = ".failed.json"
_FILTERS: Final = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "pb": 0}]  # text: smallest so
_STRIDES: Final = (1, 6)
"""Differences are taken to the row before, or to the row of the same phase of the step before."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A case as its file tells it.

    Attributes
    ----------
    case, measured
        What ran, and what was measured besides.
    run
        The run, with the earlier ones that it is held against.
    provenance
        Program, commit, versions, machine.
    """

    case: Case
    measured: Measured
    run: Run
    provenance: Mapping[str, Any]


def packed_folder(folder: Path) -> list[dict[str, Any]]:
    """Recordings of all ranks of a run folder, without what names the machine."""
    return [_packed_rank(each) for each in sorted(folder.glob("rank*"), key=lambda each: int(each.name.removeprefix("rank")))]


def _packed_rank(folder: Path) -> dict[str, Any]:
    header = json.loads((folder / HEADER).read_bytes())
    end = json.loads((folder / END).read_bytes())
    rows = {}
    for table in COLUMNS:
        path = folder / f"{table}{ROWS}"
        rows[table] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    files = {
        name: (folder / name).read_text(encoding="utf-8") for row in rows["windows"] if (folder / (name := row[-1])).exists()
    }
    return {
        "header": header | {"host": "machine", "boot": "boot", "process": 1},
        "state": end["state"],
        "reason": end["reason"],
        "tables": {table: _packed_table(each) for table, each in rows.items() if each},
        "files": files,
    }


def _packed_table(rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {"rows": len(rows), "columns": [_packed_column(list(values)) for values in zip(*rows, strict=True)]}


def _packed_column(values: list[Any]) -> dict[str, Any]:
    first = values[0]
    if all(type(value) is type(first) and value == first for value in values):
        return {"same": first}
    choices: list[dict[str, Any]] = [{"list": values}]
    if all(type(value) is int for value in values):
        for stride in _STRIDES:
            before = [0] * stride + values
            choices.append({"whole": [now - then for now, then in zip(values, before, strict=False)], "by": stride})
    return min(choices, key=lambda each: len(json.dumps(each)))


def _column(packed: Mapping[str, Any], rows: int) -> list[Any]:
    if "same" in packed:
        return [packed["same"]] * rows
    if "list" in packed:
        return list(packed["list"])
    values: list[int] = []
    stride = packed["by"]
    for place, difference in enumerate(packed["whole"]):
        values.append(difference + (values[place - stride] if place >= stride else 0))
    return values


def _rows(packed: Mapping[str, Any]) -> list[list[Any]]:
    return [list(row) for row in zip(*(_column(each, packed["rows"]) for each in packed["columns"]), strict=True)]


def unpacked(ranks: Sequence[Mapping[str, Any]]) -> Run:
    """Run of packed recordings: the one that `perfnb.read_run` reads from the folder, but for the name of the machine."""
    with tempfile.TemporaryDirectory(prefix="perfnb-stored-") as place:
        recordings = []
        for rank in ranks:
            folder = Path(place) / f"rank{rank['header']['rank']}"
            folder.mkdir()
            for name, text in rank["files"].items():
                (folder / Path(name).name).write_text(text, encoding="utf-8")
            rows = {table: _rows(rank["tables"][table]) if table in rank["tables"] else [] for table in COLUMNS}
            recordings.append(RankRecording(rank["header"], rows, rank["state"], rank["reason"], (), folder))
        return run_of(recordings, source=["stored"])


def write(path: Path, case: Case, measured: Measured, folder: Path, provenance: Mapping[str, Any]) -> int:
    """Write a case's file from the folder that it was recorded into; seen whole or not at all.

    Returns
    -------
    int
        Its size in bytes.
    """
    earlier = sorted((folder / "earlier").glob("*"), key=lambda each: int(each.name))
    told = {
        "format": FORMAT,
        "case": case.as_json(),
        "truths": [asdict(truth) for truth in measured.truths],
        "certified": measured.certified,
        "seen": measured.seen,
        "notes": list(measured.notes),
        "provenance": dict(provenance),
        "ranks": packed_folder(folder / "run"),
        "earlier": [packed_folder(each) for each in earlier],
    }
    text = json.dumps(told, separators=(",", ":"), allow_nan=True).encode()
    data = lzma.compress(text, format=lzma.FORMAT_XZ, filters=_FILTERS)
    write_whole(path, data)
    return len(data)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def header(path: Path) -> dict[str, Any]:
    """What a case's file holds, its recordings still packed.

    Raises
    ------
    ValueError
        If another version of this program wrote it.
    """
    told: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    if told["format"] != FORMAT:
        message = f"{path.name} is written in format {told['format']}, this program reads {FORMAT}: run the case again"
        raise ValueError(message)
    return told


def read(path: Path) -> Stored:
    """A case from its file."""
    told = header(path)
    truths = tuple(Truth(**{**each, "by_block": tuple(each["by_block"])}) for each in told["truths"])
    measured = Measured(truths, told["seen"], told["certified"], tuple(told["notes"]))
    earlier = tuple(unpacked(each) for each in told["earlier"])
    run = unpacked(told["ranks"])
    return Stored(Case.from_json(told["case"]), measured, replace(run, earlier=earlier) if earlier else run, told["provenance"])
