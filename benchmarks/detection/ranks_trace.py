"""What a stored case keeps of the traces of its ranks: outermost operators and what is exchanged, not every operator."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import perfnb
from benchmarks.samples.trace import clean

WHOLE: Final = "traces are stored whole: without their inner operators detectors say something else"

_EXCHANGES: Final = ("c10d", "gloo", "param_comms")
_LEFT_OUT: Final = "fwdbwd"  # links between operators of forward and backward

Event = Mapping[str, Any]


def slim_traces(folder: Path) -> tuple[str, ...]:
    """Leave the windows' traces of a run as plain text under their names, without what names the machine, and slim.

    A trace of three steps holds 20,000 operators and is ten times as large as all that is recorded besides. What makes it slim
    is only done where the detectors of today say the very same of the run afterwards: one that reads inner operators needs
    the case recorded again.

    Parameters
    ----------
    folder
        Of the run, rank0/ and rank1/ in it.

    Returns
    -------
    tuple of str
        A note where they had to be left whole.
    """
    whole = {path: clean(gzip.decompress(path.read_bytes()).decode()) for path in sorted(folder.glob("rank*/*.gz"))}
    said = []
    for texts in (whole, {path: slimmed(text) for path, text in whole.items()}):
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")  # readers know plain and compressed files by their content
        said.append(_said(folder))
    if repr(said[0]) == repr(said[1]):  # what is not a number equals itself so
        return ()
    for path, text in whole.items():
        path.write_text(text, encoding="utf-8")
    return (WHOLE,)


def slimmed(text: str) -> str:
    """A trace without operators inside of others and without their arguments; whatever exchanges data stays as it is.

    Examples
    --------
    >>> ops = [("aten::linear", 0, 9), ("aten::mm", 1, 3), ("c10d::allreduce_", 5, 1)]
    >>> events = [{"cat": "cpu_op", "name": name, "tid": 1, "ts": ts, "dur": dur, "args": {"Ev Idx": 7}} for name, ts, dur in ops]
    >>> for event in json.loads(slimmed(json.dumps({"traceEvents": events})))["traceEvents"]:
    ...     print(event["name"], event.get("args"))
    aten::linear None
    c10d::allreduce_ {'Ev Idx': 7}
    """
    told = json.loads(text)
    events = told["traceEvents"]
    kept = [event for event in events if event.get("cat") not in ("cpu_op", _LEFT_OUT)]
    operators = sorted((event for event in events if event.get("cat") == "cpu_op"), key=_place)
    for _, of_thread in groupby(operators, key=lambda event: event["tid"]):
        kept += _outermost(list(of_thread))
    return json.dumps({**told, "traceEvents": kept}, separators=(",", ":"))


def _place(event: Event) -> tuple[int, float, float]:
    return event["tid"], event["ts"], -event["dur"]


def _outermost(operators: Sequence[Event]) -> Iterator[Event]:
    end = float("-inf")
    for event in operators:
        is_outermost = event["ts"] >= end
        if is_outermost:
            end = event["ts"] + event["dur"]
        if any(word in event["name"] for word in _EXCHANGES):
            yield event
        elif is_outermost:
            yield {name: value for name, value in event.items() if name != "args"}


def _said(folder: Path) -> list[tuple[Any, ...]]:
    """All that detectors say of a run."""
    told = perfnb.diagnose(perfnb.read_run(folder))
    return [
        *((each.detector, each.severity, each.low, each.high, each.lost_us, each.tier) for each in (*told.found, *told.possible)),
        *((each.detector, each.reason) for each in told.unmeasured),
        *((each.detector, each.sentence) for each in told.hints),
        *((each.detector,) for each in told.cleared),
    ]
