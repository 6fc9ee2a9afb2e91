"""The tables behind the charts: parts of a step in words, a step's timeline in buckets, predictions side by side."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from perfnb.errors import NoStepsError
from perfnb.intervals import Intervals, clip, covered, subtract, union
from perfnb.prediction import Prediction, Unknown
from perfnb.read.kineto.classify import LOADER_PATTERN
from perfnb.run import Run

SMALLEST_SHARE: Final = 0.005
"""Parts below this share of a step are shown together: a choice of display."""

MOST_ROWS: Final = 2000
"""Most rows of a timeline: what a chart may hold."""

MOST_BUCKETS: Final = 400
"""Most buckets of a timeline: about two pixels each on a wide screen."""

_FULL: Final = 0.995  # a bucket that is at least so busy is drawn like its full neighbours, so they become one row
_IDLE: Final = 1e-3

PART_WORDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "compute": ("Computing", "computing"),
        "exposed_communication": ("Exposed communication", "communication"),
        "exposed_copy": ("Exposed copies", "copying"),
        "idle.data": ("Idle: waiting for data", "data"),
        "idle.sync": ("Idle: host waits for the device", "waiting"),
        "idle.launch": ("Idle: launching", "launching"),
        "idle.python": ("Idle: Python", "python"),
        "idle.transfer": ("Idle: copy from pageable memory", "copying"),
        "idle.dependency": ("Idle: waiting for a stream or rank", "waiting"),
        "idle.unattributed": ("Idle: cause not recorded", "unexplained"),
        "data": ("Waiting for data", "data"),
        "transfer": ("Copying to the device", "copying"),
        "forward": ("Forward", "computing"),
        "backward": ("Backward", "computing"),
        "optimizer": ("Optimizer", "computing"),
        "communication": ("Communication", "communication"),
        "inference": ("Forward without gradients", "computing"),
        "other": ("Other Python", "python"),
        "unsplit": ("Forward, backward and other", "unexplained"),
    }
)
"""Ledger part, or phase of the host clock, to its words and to the group that gives it its colour."""

_KIND_WORDS: Final = MappingProxyType(
    {"cpu": " on a core", "runqueue": ", waiting for a core", "blocked": ", blocked", "wall": ""}
)


def breakdown(parts: pd.DataFrame) -> pd.DataFrame:
    """Parts of a step in words, largest first; those below `SMALLEST_SHARE` are one row.

    Parameters
    ----------
    parts
        One row per ledger part: part, time_us, share; as `Diagnosis.parts`.

    Returns
    -------
    pandas.DataFrame
        One row per part: label, group, time_us, share.

    Examples
    --------
    >>> breakdown(pd.DataFrame({"part": ["compute", "idle.data"], "time_us": [40.0, 60.0], "share": [0.4, 0.6]}))
                        label      group  time_us  share
    0  Idle: waiting for data       data     60.0    0.6
    1               Computing  computing     40.0    0.4
    """
    if parts.empty:
        return pd.DataFrame(columns=["label", "group", "time_us", "share"])
    words = [_words(part) for part in parts["part"].astype(str)]
    named = parts.assign(label=[label for label, _ in words], group=[group for _, group in words])
    named = named.sort_values("time_us", ascending=False, kind="stable", ignore_index=True)[
        ["label", "group", "time_us", "share"]
    ]
    small = named["share"] < SMALLEST_SHARE
    if small.sum() < 2:  # noqa: PLR2004 - one small part keeps its own name
        return named
    rest = {
        "label": f"{int(small.sum())} others",
        "group": "unexplained" if (named.loc[small, "group"] == "unexplained").all() else "other",
        "time_us": named.loc[small, "time_us"].sum(),
        "share": named.loc[small, "share"].sum(),
    }
    return pd.concat([named[~small], pd.DataFrame([rest])], ignore_index=True)


def step_timeline(run: Run, rank: int, step: int) -> pd.DataFrame:
    """What host and device did during one step, in buckets of equal length.

    Parameters
    ----------
    run
        The run.
    rank, step
        Which step.

    Returns
    -------
    pandas.DataFrame
        One row per lane and bucket in which something ran, full neighbours joined; at most `MOST_ROWS`: lane, group, start_us
        and end_us since the start of the step, busy_share (of the bucket).

    Raises
    ------
    NoStepsError
        If the run has no such step.
    """
    chosen = run.steps[run.steps["rank"].eq(rank) & run.steps["step"].eq(step)]
    if chosen.empty:
        own = run.steps.loc[run.steps["rank"].eq(rank), "step"]
        there = (
            f"its steps are {own.min()} to {own.max()}" if len(own) else f"the ranks read are {', '.join(map(str, run.ranks))}"
        )
        message = f"rank {rank} has no step {step}: {there}"
        raise NoStepsError(message)
    low = float(chosen["start_us"].iloc[0])
    high = low + float(chosen["duration_us"].iloc[0])
    lanes = {lane: (group, clip(spans, low, high)) for lane, (group, spans) in _lanes(run, rank, low, high).items()}
    lanes = {lane: (group, spans) for lane, (group, spans) in lanes.items() if len(spans)}
    buckets = min(MOST_BUCKETS, MOST_ROWS // max(len(lanes), 1))
    edges = np.linspace(low, high, buckets + 1)
    frames = [_bucketed(lane, group, spans, edges) for lane, (group, spans) in lanes.items()]
    columns = ["lane", "group", "start_us", "end_us", "busy_share"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def impact(predictions: Mapping[str, Prediction | Unknown]) -> pd.DataFrame:
    """Predictions side by side; what is unknown has a row without numbers.

    Returns
    -------
    pandas.DataFrame
        One row per prediction in the given order: label, before_us, after_us, low_us, high_us, speedup, verdict.

    Examples
    --------
    >>> impact({"4 workers": Prediction("step_us", 100.0, 50.0, 40.0, 60.0, "prior"), "cache": Unknown("", "")})[
    ...     ["label", "after_us", "verdict"]
    ... ]
           label  after_us  verdict
    0  4 workers      50.0   faster
    1      cache       NaN  unknown
    """
    nothing = float("nan")
    rows = [
        (label, given.before, given.after, given.low, given.high, given.speedup, given.verdict)
        if isinstance(given, Prediction)
        else (label, *(nothing,) * 5, "unknown")
        for label, given in predictions.items()
    ]
    return pd.DataFrame(rows, columns=["label", "before_us", "after_us", "low_us", "high_us", "speedup", "verdict"])


def _words(part: str) -> tuple[str, str]:
    if part in PART_WORDS:
        return PART_WORDS[part]
    phase, _, kind = part.rpartition(".")
    label, group = PART_WORDS.get(phase, (part, "other"))
    return label + _KIND_WORDS.get(kind, ""), group


def _lanes(run: Run, rank: int, low: float, high: float) -> dict[str, tuple[str, Intervals]]:
    """Lane to its group and the times in which it was busy: device above host, parents taken out of what they contain."""
    device, host = _within(run.device_ops, rank, low, high), _within(run.host_ops, rank, low, high)
    name, category = host["name"].astype(str), host["category"].astype(str)
    loading = _spans(host[name.str.contains(LOADER_PATTERN)])
    backward = _spans(host[name.str.startswith("autograd::engine::evaluate_function")])
    optimizer = _spans(host[name.str.startswith("Optimizer.")])
    waiting = _spans(host[name.str.contains("Synchronize", regex=False) | category.eq("synchronization")])
    operators = _spans(host[category.eq("operator") & ~name.str.startswith("gloo:")])
    for taken in (loading, backward, optimizer):
        operators = subtract(operators, taken)
    kind = device["kind"].astype(str)
    return {
        "Device: computing": ("computing", _spans(device[kind.eq("compute")])),
        "Device: communication": ("communication", _spans(device[kind.eq("communication")])),
        "Device: copies": ("copying", _spans(device[kind.isin(["copy", "memset"])])),
        "Host: waiting for data": ("data", loading),
        "Host: operators": ("computing", operators),
        "Host: backward": ("computing", backward),
        "Host: optimizer": ("computing", optimizer),
        "Host: communication": ("communication", _spans(host[name.str.startswith("gloo:")])),
        "Host: runtime calls": ("launching", subtract(_spans(host[category.eq("runtime")]), waiting)),
        "Host: waiting for the device": ("waiting", waiting),
    }


def _within(events: pd.DataFrame, rank: int, low: float, high: float) -> pd.DataFrame:
    start = events["start_us"]
    return events[events["rank"].eq(rank) & (start < high) & (start + events["duration_us"] > low)]


def _spans(events: pd.DataFrame) -> Intervals:
    start = events["start_us"].to_numpy()
    return union(start, start + events["duration_us"].to_numpy())


def _bucketed(lane: str, group: str, spans: Intervals, edges: np.ndarray) -> pd.DataFrame:
    busy = covered(spans, edges[:-1], edges[1:]) / np.diff(edges)
    busy = np.where(busy >= _FULL, 1.0, busy)
    frame = pd.DataFrame({"start_us": edges[:-1] - edges[0], "end_us": edges[1:] - edges[0], "busy_share": busy})
    frame = frame[frame["busy_share"] > _IDLE]
    follows = frame["start_us"].eq(frame["end_us"].shift()) & frame["busy_share"].eq(frame["busy_share"].shift())
    runs = frame.groupby((~follows).cumsum(), sort=False)
    joined = runs.agg(start_us=("start_us", "first"), end_us=("end_us", "last"), busy_share=("busy_share", "first"))
    return joined.assign(lane=lane, group=group)[["lane", "group", "start_us", "end_us", "busy_share"]]
