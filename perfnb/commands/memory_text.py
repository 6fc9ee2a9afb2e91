"""Plain-text and JSON faces of the reports of a memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb import terminal, text
from perfnb.read.memory_snapshot.out_of_memory import OutOfMemory
from perfnb.whatif.memory_report import MemoryReport

_WIDTH: Final = 60
_HEIGHT: Final = 8
_SIGNS: Final = "#*+=o~.:"
_MOST_SIGNS: Final = 8
_FRAMES: Final = 3
_OOM_NAMES: Final = (
    "wanted_bytes",
    "free_bytes",
    "total_bytes",
    "allowed_bytes",
    "in_use_bytes",
    "allocated_bytes",
    "private_pools_bytes",
    "reserved_unallocated_bytes",
    "outside_bytes",
)


def out_of_memory_text(error: OutOfMemory) -> str:
    """Verdict and numbers of an out-of-memory message."""
    sizes = [(name.removesuffix("_bytes").replace("_", " "), text.byte_size(value)) for name, value in _sizes(error).items()]
    return "\n\n".join(
        [
            f"Verdict\n{terminal.table((), [(error.verdict,)])}",
            f"The message's numbers\n{terminal.table(('what', 'size'), sizes)}",
            f"What may help\n{terminal.table((), [(one,) for one in remedies(error)])}",
        ]
    )


def out_of_memory_json(error: OutOfMemory) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "cause": error.cause,
        "verdict": error.verdict,
        "device": error.device,
        **_sizes(error),
        "shortage_bytes": error.shortage_bytes,
        "remedies": remedies(error),
    }


def remedies(error: OutOfMemory) -> list[str]:
    """What to look at for each cause, in the names of perfnb's fixes."""
    if error.cause == "fragmentation":
        return [
            "use_expandable_segments: segments that grow leave fewer holes (restart the kernel)",
            "a memory snapshot tells whether it would: perfnb memory SNAPSHOT",
        ]
    if error.cause == "shortage":
        return [
            "lower_batch_accumulate, checkpoint_activations, use_bf16, shard_optimizer_state",
            "perfnb.predict_memory tells, without a GPU, what each of these saves",
            "a memory snapshot tells who holds the memory: perfnb memory SNAPSHOT",
        ]
    if error.cause == "limit":
        return ["raise the memory fraction (torch.cuda.set_per_process_memory_fraction), or the limit that the system sets"]
    return ["a memory snapshot, dumped when it happens (perfnb.record_allocations does), tells more: perfnb memory SNAPSHOT"]


def reports_text(reports: Iterable[MemoryReport], notes: Iterable[str]) -> str:
    """All reports under each other, then the reader's notes."""
    parts = [_report_text(one) for one in reports]
    noted = terminal.table((), [(note,) for note in notes])
    return "\n\n".join([*parts, *([f"Notes\n{noted}"] if noted else [])])


def reports_json(reports: Iterable[MemoryReport], notes: Iterable[str]) -> dict[str, Any]:
    """All reports as plain values; lines over time left out."""
    return {"memories": [_report_json(one) for one in reports], "notes": list(notes)}


def picture(lines: pd.DataFrame) -> str:
    """A stacked chart of what holds a memory over time, as text: one sign per line, the largest at the bottom.

    Parameters
    ----------
    lines
        `perfnb.memory_ledger_time.memory_over_time(run)`.

    Examples
    --------
    >>> rows = [("a", time, 4.0) for time in range(3)] + [("b", time, 4.0 * (time == 1)) for time in range(3)]
    >>> print(picture(pd.DataFrame(rows, columns=["measure", "time_us", "bytes"])).splitlines()[0].strip())
    8 B |                    ********************                    |
    """
    names = list(dict.fromkeys(lines["measure"]))[:_MOST_SIGNS]
    table = lines.pivot_table(index="time_us", columns="measure", values="bytes", aggfunc="last")[names].ffill().fillna(0)
    places = np.linspace(0, len(table), _WIDTH + 1).astype(int)
    columns = [_column(table.iloc[start : max(stop, start + 1)]) for start, stop in pairwise(places.tolist())]
    highest = max((sum(one) for one in columns), default=0.0) or 1.0
    rows = []
    for height in range(_HEIGHT, 0, -1):
        label = text.byte_size(highest) if height == _HEIGHT else ""
        rows.append(f"{label:>10} |{''.join(_sign(one, (height - 0.5) * highest / _HEIGHT) for one in columns)}|")
    key = ", ".join(f"{sign} {text.name(name)}" for sign, name in zip(_SIGNS, names, strict=False))
    return "\n".join([*rows, f"{'':>10}  {key}"])


def _column(part: pd.DataFrame) -> list[float]:
    """Bytes of each line at the highest moment of a part of the time."""
    return part.iloc[min(int(part.sum(axis=1).to_numpy().argmax()), len(part) - 1)].astype(float).tolist() if len(part) else []


def _sign(column: list[float], level: float) -> str:
    ends = np.cumsum(column)
    place = int(np.searchsorted(ends, level))
    return _SIGNS[place] if place < len(ends) else " "


def _sizes(error: OutOfMemory) -> dict[str, int]:
    found = {name: getattr(error, name) for name in _OOM_NAMES}
    return {name: value for name, value in found.items() if value is not None}


def _report_text(report: MemoryReport) -> str:
    where = "host" if report.device == "host" else f"device {report.device}"
    parts = [f"Memory of rank {report.rank}, {where}\n{terminal.table((), [(one,) for one in report.verdict])}"]
    if report.categories is not None:
        parts.append(f"At the peak\n{_held(report.categories, 'category')}")
    if report.stacks is not None and len(report.stacks):
        parts.append(f"Where it was allocated\n{_held(report.stacks, 'stack')}")
    if report.lines is not None and len(report.lines):
        parts.append(f"Over time\n{picture(report.lines)}")
    if report.settings is not None:
        rows = [_setting(row) for row in report.settings.to_dict(orient="records")]
        header = ("setting", "reserved", "change", "required", "change", "retries")
        parts.append(f"With other settings of the allocator (simulated, not validated)\n{terminal.table(header, rows)}")
    if report.not_known:
        parts.append(f"Not known\n{terminal.table((), [(one,) for one in report.not_known])}")
    return "\n\n".join(parts)


def _held(rows: pd.DataFrame, by: str) -> str:
    lines = [
        (text.byte_size(row["bytes"]), text.share(row["share"]), f"{row['blocks']:,}", _short(str(row[by])))
        for row in rows.to_dict(orient="records")
    ]
    return terminal.table(("bytes", "share", "blocks", by), lines)


def _short(stack: str) -> str:
    """The innermost frames, files without their folders."""
    frames = stack.split(";")
    named = [frame.rsplit("/", 1)[-1] for frame in frames[:_FRAMES]]
    return text.clean(" < ".join(named) + (f" < {len(frames) - _FRAMES} more" if len(frames) > _FRAMES else ""))


def _setting(row: Mapping[Any, Any]) -> tuple[str, ...]:
    changes = [_change(row[name]) for name in ("reserved_change_bytes", "required_change_bytes")]
    sizes = [text.byte_size(row[name]) for name in ("reserved_bytes", "required_bytes")]
    return (row["setting"], sizes[0], changes[0], sizes[1], changes[1], str(row["retries"]))


def _change(size: int) -> str:
    return "none" if not size else f"{'+' if size > 0 else '-'}{text.byte_size(abs(size))}"


def _report_json(report: MemoryReport) -> dict[str, Any]:
    tables = {name: getattr(report, name) for name in ("categories", "stacks", "settings")}
    return {
        "rank": report.rank,
        "device": report.device,
        "verdict": list(report.verdict),
        "sizes": dict(report.sizes),
        "shares": dict(report.shares),
        **{name: None if rows is None else rows.to_dict(orient="records") for name, rows in tables.items()},
        "not_known": list(report.not_known),
    }
