"""The pieces of a critical path as a table, each with the row of the run that it was."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import LedgerError
from perfnb.run import Run
from perfnb.whatif.device_work import NONE
from perfnb.whatif.host_lines import KIND_CODES, KINDS, Floats, Integers
from perfnb.whatif.path_walk import Piece
from perfnb.whatif.work_graph import WorkGraph

PATH_COLUMNS: Final = ("start_us", "duration_us", "place", "kind", "name", "table", "row")
_TOLERANCE_US: Final = 1e-3
_NO_ROW: Final = "no recorded row"
_KIND_OF_OP: Final = {"compute": "kernel", "communication": "communication", "copy": "copy", "memset": "copy"}
_LAUNCH, _DEPENDENCY, _OP = (KIND_CODES[kind] for kind in ("launch", "dependency", "kernel"))


def named(run: Run, graph: WorkGraph, pieces: list[Piece]) -> pd.DataFrame:
    """The pieces in time order as a table; host pieces row by row."""
    host = [_host_rows(graph, piece) for piece in pieces if piece.thread != NONE]
    device = [piece for piece in pieces if piece.thread == NONE]
    frames = [pd.DataFrame({"start_us": [], "end_us": [], "place": [], "kind": [], "name": [], "table": [], "row": []})]
    if host:
        start, end, row, kind = (np.concatenate(column) for column in zip(*(rows for _, rows in host), strict=True))
        place = np.repeat([label for label, _ in host], [len(rows[0]) for _, rows in host])
        frames.append(
            pd.DataFrame(
                {
                    "start_us": start,
                    "end_us": end,
                    "place": place,
                    "kind": np.array(KINDS, dtype=object)[kind],
                    "name": _names(run.host_ops, row),
                    "table": _choice(row == NONE, np.ones(len(row), dtype=bool)),
                    "row": row,
                }
            )
        )
    if device:
        frames.append(_device_rows(run, graph, device))
    path = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    path = path.sort_values("start_us", kind="stable", ignore_index=True)
    _check(path, graph)
    return path.assign(
        duration_us=path["end_us"] - path["start_us"],
        place=path["place"].astype("category"),
        kind=pd.Categorical(path["kind"], categories=list(KINDS)),
        table=path["table"].astype("category"),
        row=path["row"].astype("Int64").where(path["row"] != NONE),
    )[list(PATH_COLUMNS)]


def _host_rows(graph: WorkGraph, piece: Piece) -> tuple[str, tuple[Floats, Floats, Integers, Integers]]:
    line = graph.lines[piece.thread]
    start, end, row, kind = line.stretches(piece.start_us, piece.end_us)
    return line.label, (start, end, row, kind if piece.kind == NONE else np.full(len(kind), piece.kind))


def _device_rows(run: Run, graph: WorkGraph, pieces: list[Piece]) -> pd.DataFrame:
    work = graph.work
    op, kind = np.array([piece.op for piece in pieces]), np.array([piece.kind for piece in pieces])
    known = op != NONE
    rows = run.device_ops.loc[work.label[op[known]]] if known.any() else run.device_ops.iloc[:0]
    is_launch, is_dependency, is_op = kind == _LAUNCH, kind == _DEPENDENCY, kind == _OP
    kinds = np.array(KINDS, dtype=object)[kind]
    kinds[is_op] = rows["kind"].astype(object).map(_KIND_OF_OP).fillna("kernel").to_numpy()[is_op[known]]
    label = np.full(len(op), NONE, dtype=np.int64)
    label[known] = work.label[op[known]]
    label[is_launch] = work.call[op[is_launch]]
    label[is_dependency] = work.label[work.source[op[is_dependency]]]
    name = np.where(
        is_launch,
        _names(run.host_ops, np.where(is_launch, label, NONE)),
        _names(run.device_ops, np.where(is_launch, NONE, label)),
    )
    inferred = is_dependency & work.is_inferred[op]
    name[inferred] = name[inferred] + " (inferred)"
    device, stream = rows["device"].fillna(NONE).to_numpy(), rows["stream"].fillna(NONE).to_numpy()
    places = np.full(len(op), "device", dtype=object)
    places[known] = [f"device {one} stream {other}" for one, other in zip(device, stream, strict=True)]
    return pd.DataFrame(
        {
            "start_us": [piece.start_us for piece in pieces],
            "end_us": [piece.end_us for piece in pieces],
            "place": places,
            "kind": kinds,
            "name": name,
            "table": _choice(label == NONE, is_launch),
            "row": label,
        }
    )


def _choice(absent: NDArray[np.bool_], on_host: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Table that each row of a path is from; None where it is none."""
    tables = np.array([None, "host_ops", "device_ops"], dtype=object)
    chosen: NDArray[np.object_] = tables[np.where(absent, 0, np.where(on_host, 1, 2))]
    return chosen


def _names(table: pd.DataFrame, labels: Integers) -> NDArray[np.object_]:
    found = np.full(len(labels), _NO_ROW, dtype=object)
    known = labels != NONE
    found[known] = table["name"].loc[labels[known]].astype(object).to_numpy()
    return found


def _check(path: pd.DataFrame, graph: WorkGraph) -> None:
    start, end = path["start_us"].to_numpy(), path["end_us"].to_numpy()
    joints = np.concatenate([[graph.low_us], end]) - np.concatenate([start, [graph.high_us]])
    if np.abs(joints).max() > _TOLERANCE_US or (end < start).any():
        message = (
            f"the critical path covers {(end - start).sum():.3f} us of {graph.high_us - graph.low_us:.3f} us, with a joint that "
            f"is off by {np.abs(joints).max():.3f} us: please report this run"
        )
        raise LedgerError(message)
