"""The critical path of a step: the one chain of work and waits, on host and devices, that its length is made of."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import LedgerError, PerfnbError
from perfnb.ledger import used_steps
from perfnb.run import Run
from perfnb.whatif.host_lines import KIND_CODES, KINDS, Floats, Integers
from perfnb.whatif.work_graph import DEPENDENCY, LAUNCH, NONE, UNKNOWN, WorkGraph, work_graph

PATH_COLUMNS: Final = ("start_us", "duration_us", "place", "kind", "name", "table", "row")
_TOLERANCE_US: Final = 1e-3
_NO_ROW: Final = "no recorded row"
_KIND_OF_OP: Final = {"compute": "kernel", "communication": "communication", "copy": "copy", "memset": "copy"}
_WAIT, _LAUNCH, _QUEUE, _DEPENDENCY, _UNKNOWN, _OP = (
    KIND_CODES[kind] for kind in ("synchronization", "launch", "queue", "dependency", "unknown", "kernel")
)


def critical_path(run: Run, step: int | Literal["window"] | None = None, rank: int | None = None) -> pd.DataFrame:
    r"""The chain of work and waits that made a step as long as it was, in time order; its pieces cover the step exactly once.

    From the end of the step backwards: a host thread's own time, until it went on only because a device op (a synchronizing
    call, a blocking copy) or another thread (the backward engine) was done; a device op, until it started, which came after
    the last of its launch call, the op before it in its stream and an op of another stream that it waited for. A wait across
    streams that no record states is taken from the op that ended in the 15 us before, where nothing else explains a start
    later than usual; its name says "inferred". What the trace does not tell is a piece `unknown`.

    Parameters
    ----------
    run
        A run with host or device ops.
    step
        Number of a step; "window" for all that was recorded. By default the used step of middle length, and the window where
        the run has no steps.
    rank
        By default the rank that was longest in that step.

    Returns
    -------
    pandas.DataFrame
        One row per piece: start_us, duration_us, place (host thread or device stream), kind (one of
        `perfnb.whatif.host_lines.KINDS`), name, and table and row (label) of what it is, NA where it is none. `attrs` holds
        rank, step (NA for the window), start_us and duration_us of what is covered.

    Raises
    ------
    PerfnbError
        If the run has no such step or rank, or neither host nor device ops.
    LedgerError
        If the pieces do not cover the step: a defect of perfnb.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> run = Run(
    ...     steps=table_from_text("steps", "rank step start_us duration_us\n0 1 0 50"),
    ...     host_ops=table_from_text(
    ...         "host_ops",
    ...         '''rank process thread category name             start_us duration_us correlation
    ...            0    1       1      runtime  cudaLaunchKernel 0        4           1
    ...            0    1       1      runtime  cudaDeviceSynchronize 10  40          2''',
    ...     ),
    ...     device_ops=table_from_text(
    ...         "device_ops",
    ...         '''rank device stream kind    name start_us duration_us correlation
    ...            0    0      7      compute gemm 6        42          1''',
    ...     ),
    ... )
    >>> critical_path(run)[["start_us", "duration_us", "kind", "name"]]
       start_us  duration_us             kind                   name
    0       0.0          6.0           launch       cudaLaunchKernel
    1       6.0         42.0           kernel                   gemm
    2      48.0          2.0  synchronization  cudaDeviceSynchronize
    """
    number, chosen, low, high = chosen_window(run, step, rank)
    graph = work_graph(run, chosen, low, high)
    pieces = walked(graph, to_host=number is not pd.NA)
    path = named(run, graph, pieces)
    path.attrs.update(rank=chosen, step=number, start_us=low, duration_us=high - low)
    return path


def critical_path_summary(path: pd.DataFrame, by: Literal["kind", "name"] = "kind") -> pd.DataFrame:
    """Share of the step by what its critical path is made of, largest first.

    Parameters
    ----------
    path
        From `critical_path`.
    by
        "kind", or "name" for each name of each kind.

    Returns
    -------
    pandas.DataFrame
        One row per kind, or kind and name: pieces (how many), time_us, share (of the step).

    Raises
    ------
    PerfnbError
        If `by` is neither.
    """
    if by not in ("kind", "name"):
        message = f"by={by!r} is not known: use 'kind' or 'name'"
        raise PerfnbError(message)
    keys = ["kind"] if by == "kind" else ["kind", "name"]
    summed = path.groupby(keys, observed=True, as_index=False, dropna=False)["duration_us"].agg(["count", "sum"])
    summed = summed.rename(columns={"count": "pieces", "sum": "time_us"})
    total = float(path["duration_us"].sum())
    summed = summed.assign(share=summed["time_us"] / total if total else 0.0)
    ordered: pd.DataFrame = summed.sort_values("time_us", ascending=False, kind="stable", ignore_index=True)
    return ordered


def chosen_window(run: Run, step: int | str | None, rank: int | None) -> tuple[object, int, float, float]:
    """Step number (NA for the window), rank, start and end of what is asked for."""
    if run.host_ops.empty and run.device_ops.empty:
        message = "the run has neither host nor device ops, so nothing is known of what its steps wait for: read a profiler trace"
        raise PerfnbError(message)
    if rank is not None and rank not in run.ranks:
        message = f"rank {rank} is not in the run: it has {', '.join(map(str, run.ranks))}"
        raise PerfnbError(message)
    steps = run.steps if rank is None else run.steps[run.steps["rank"] == rank]
    if step == "window" or (step is None and steps.empty):
        return (pd.NA, *_recorded(run, rank))
    if step is None:
        used = used_steps(run)
        used = used if rank is None else used[used["rank"] == rank]
        longest = (used if len(used) else steps).groupby("step")["duration_us"].max().sort_values(kind="stable")
        step = int(longest.index[(len(longest) - 1) // 2])
    own = steps[steps["step"] == step]
    if own.empty:
        known = ", ".join(map(str, sorted(steps["step"].unique())[:10])) or "none"
        message = f"step {step} is not in the run: it has {known}; 'window' asks for all that was recorded"
        raise PerfnbError(message)
    row = own.loc[own["duration_us"].idxmax()]
    return int(row["step"]), int(row["rank"]), float(row["start_us"]), float(row["start_us"] + row["duration_us"])


def _recorded(run: Run, rank: int | None) -> tuple[int, float, float]:
    """Rank, first start and last end of what was recorded; of the rank of most time where none is given."""
    spans = {}
    for each in run.ranks if rank is None else (rank,):
        rows = pd.concat(
            [table.loc[table["rank"] == each, ["start_us", "duration_us"]] for table in (run.host_ops, run.device_ops)]
        )
        if len(rows):
            spans[each] = float(rows["start_us"].min()), float((rows["start_us"] + rows["duration_us"]).max())
    if not spans:
        message = f"rank {rank} has neither host nor device ops: read its profiler trace"
        raise PerfnbError(message)
    longest = max(spans, key=lambda each: spans[each][1] - spans[each][0])
    return longest, *spans[longest]


class Piece(NamedTuple):
    """A stretch of the path: on a host thread (all that it did then), or one thing of a device op."""

    start_us: float
    end_us: float
    thread: int  # NONE for a device piece
    op: int
    kind: int  # of a host piece: NONE for what its rows are


def walked(graph: WorkGraph, *, to_host: bool) -> list[Piece]:
    """Pieces of the path, last one first; `to_host`: it ends on the main thread, as a step does, else with what ended last."""
    walk = _Walk(graph)
    work = graph.work
    last = int(work.end_us.argmax()) if len(work.end_us) else NONE
    if graph.main in graph.lines and (to_host or last == NONE or work.end_us[last] < graph.high_us):
        walk.on_host(graph.main, graph.high_us)
    else:
        walk.ended_by(last)
    while walk.time_us > graph.low_us:
        walk.go_on()
    return walk.pieces


class _Walk:
    """A walk backwards through the graph."""

    def __init__(self, graph: WorkGraph) -> None:
        self.graph = graph
        self.pieces: list[Piece] = []
        self.thread, self.op = NONE, NONE
        self.time_us = graph.high_us
        self._times = {thread: [turn.time_us for turn in turns] for thread, turns in graph.turns.items()}
        self._handed = False

    def on_host(self, thread: int, time_us: float, *, handed: bool = False) -> None:
        """The path goes on at a moment of a thread; `handed`: where that thread had just done its work."""
        self.thread, self.op, self.time_us, self._handed = thread, NONE, time_us, handed

    def ended_by(self, op: int) -> None:
        """The path ends with a device op; what follows it is not known."""
        self.thread, self.op = NONE, op
        self._add(float(self.graph.work.end_us[op]) if op != NONE else self.graph.low_us, _UNKNOWN)

    def on_device(self, op: int, time_us: float) -> None:
        self.thread, self.op, self.time_us = NONE, op, time_us

    def go_on(self) -> None:
        if self.op == NONE:
            self._host_step()
        else:
            self._device_step()

    def _host_step(self) -> None:
        graph, times = self.graph, self._times.get(self.thread, [])
        index = bisect_right(times, self.time_us)
        turn = None
        while index and turn is None:
            index -= 1
            candidate = graph.turns[self.thread][index]
            if not (self._handed and not candidate.from_device and candidate.time_us == self.time_us):
                turn = candidate
        if turn is None or turn.time_us <= graph.low_us or turn.source_us <= graph.low_us:
            self._add(graph.low_us, NONE)
        elif turn.from_device:
            self._add(turn.time_us, NONE)
            self._add(turn.source_us, _WAIT)
            self.on_device(turn.source, turn.source_us)
        else:
            self._add(turn.source_us, NONE)
            self.on_host(turn.source, turn.source_us, handed=True)

    def _device_step(self) -> None:
        graph, work, op = self.graph, self.graph.work, self.op
        start = float(work.start_us[op])
        self._add(start, _OP)
        if start <= graph.low_us:
            return
        binding, before = int(work.binding[op]), int(work.before[op])
        if binding == LAUNCH:
            call = float(work.call_us[op])
            if work.is_unexplained[op]:
                self._add(call + work.usual_lag_us, _UNKNOWN)
            self._add(call, _LAUNCH)
            self.on_host(int(work.thread[op]), call)
        elif binding == DEPENDENCY:
            source = int(work.source[op])
            self._add(float(work.end_us[source]), _DEPENDENCY)
            self.on_device(source, self.time_us)
        elif before != NONE:
            self._add(min(float(work.end_us[before]), start), _UNKNOWN if binding == UNKNOWN else _QUEUE)
            self.on_device(before, self.time_us)
        else:
            self._add(graph.low_us, _UNKNOWN)

    def _add(self, start_us: float, kind: int) -> None:
        start = max(start_us, self.graph.low_us)
        if start < self.time_us:
            self.pieces.append(Piece(start, self.time_us, self.thread, self.op, kind))
            self.time_us = start


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
                    "table": np.where(row == NONE, None, "host_ops"),
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
    name = np.where(is_launch, _names(run.host_ops, np.where(is_launch, label, NONE)), _names(run.device_ops, np.where(is_launch, NONE, label)))
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
            "table": np.where(label == NONE, None, np.where(is_launch, "host_ops", "device_ops")),
            "row": label,
        }
    )


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
            f"the critical path covers {(end - start).sum():.3f} us of {graph.high_us - graph.low_us:.3f} us, with a joint that is "
            f"off by {np.abs(joints).max():.3f} us: please report this run"
        )
        raise LedgerError(message)
