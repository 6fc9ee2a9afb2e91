"""What the monitor panel says: how the recording stands, the job's pace, the host and its GPUs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import pandas as pd

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS
from perfnb.document import Block, Items, Line, Section, Table, Verdict
from perfnb.read.newest import Device, Now, RankNow

MOST_RANKS: Final = 16
"""Ranks that have a row of their own; the others are counted."""

_OLD_S: Final = 5.0  # the recorder writes twice a second
_REASONS: Final = (
    (0x1, "idle"),
    (0x2, "clocks set by a user"),
    (0x4, "power cap"),
    (0x8, "hardware slowdown"),
    (0x10, "sync boost"),
    (0x20, "heat (software)"),
    (0x40, "heat (hardware)"),
    (0x80, "power brake"),
    (0x100, "display clocks"),
)
"""Bits of nvml.h, nvmlClocksEventReason*."""

_SIGNS: Final = {"running": "", "finished": "ok", "failed": "x", "killed": "x"}


def monitor_blocks(now: Now) -> list[Block]:
    """State, job, host and GPUs, each in a table with bars."""
    hosts = {each.host: each for each in reversed(now.ranks)}
    host_tables: list[Block] = [block for each in reversed(hosts.values()) for block in _host(each)]
    return [_state(now), *_job(now), *host_tables, *_gpus(now)]


def history_frame(now: Now | None) -> pd.DataFrame:
    """The history as the chart takes it."""
    return pd.DataFrame(list(now.history) if now else [], columns=["line", "seconds", "share"])


def history_table(history: pd.DataFrame) -> list[Block]:
    """The chart's lines as numbers."""
    if history.empty:
        return []
    spans = history.groupby("line", sort=False)["share"].agg(["min", "mean", "max", "last"])
    rows = tuple(
        (text.name(line), *(text.share(float(value)) for value in row))
        for line, row in zip(spans.index, spans.itertuples(index=False), strict=True)
    )
    title = f"The last {-float(history['seconds'].min()):.0f} s in numbers"
    return [Section(title, (Table("", ("", "lowest", "mean", "highest", "newest"), rows, frozenset({1, 2, 3, 4})),))]


def _state(now: Now) -> Verdict:
    states = defaultdict(list)
    for each in now.ranks:
        states[each.state].append(each)
    of = f" of {now.world_size}" if now.world_size and now.world_size != len(now.ranks) else ""
    who = text.count(len(now.ranks), "rank") + of
    worst = next(state for state in ("failed", "killed", "running", "finished") if state in states)
    first = states[worst][0]
    words = {
        "failed": f"failed: rank {first.rank}: {text.clean(first.reason, 200)}",
        "killed": f"rank {first.rank} was killed",
        "running": "recording",
        "finished": "the recording has ended",
    }[worst]
    ages = [each.age_s for each in now.ranks if not math.isnan(each.age_s)]
    age = "" if now.is_over else f"newest row {min(ages):.1f} s old" if ages else "no row yet"
    is_late = worst == "running" and bool(ages) and min(ages) > _OLD_S
    late = ": it writes twice a second, so it hangs, or its clock is off" if is_late else ""
    return Verdict("?" if is_late else _SIGNS[worst], f"{who}, {words}", f"{age}{late}", "monitor")  # type: ignore[arg-type]


def _job(now: Now) -> list[Block]:
    stepped = [each for each in now.ranks if each.step is not None]
    if not stepped:
        return [Line("job", "no step ended yet: the machine alone is shown")]
    behind = sorted(stepped, key=lambda each: (each.state == "running", each.step, each.rank))[:MOST_RANKS]
    shown = sorted(behind, key=lambda each: each.rank)
    rows = tuple(
        (
            str(each.rank),
            f"{each.step:,}",
            text.NOTHING if math.isnan(each.steps_per_s) else f"{each.steps_per_s:.3g}",
            text.duration(each.step_us),
            text.share(each.data_share),
            text.NOTHING if math.isnan(each.loss) else f"{each.loss:.4g}",
            each.state,
        )
        for each in shown
    )
    bars = tuple((0.0 if math.isnan(each.data_share) else each.data_share, GROUP_COLOURS["data"]) for each in shown)
    more = len(stepped) - len(shown)
    caption = f"Job, those behind of {len(stepped)} ranks" if more else "Job, mean of the last 10 s"
    header = ("rank", "step", "steps per s", "mean step", "waits for data", "loss", "state")
    unknown = all(math.isnan(each.data_share) for each in shown)
    why = [Line("", "waits for data: -: no step waited for a batch of a DataLoader")] if unknown else []
    return [Table(caption, header, rows, frozenset({1, 2, 3, 4, 5}), bars), *why]


def _host(rank: RankNow) -> list[Block]:
    values = rank.host_values
    if not values:
        reason = text.clean(rank.host_reasons.get("", "not sampled yet"), 200)
        return [Line("host", f"{text.name(rank.host or 'this machine')}: {text.NOTHING}: {reason}")]
    used, limit = values.get("memory_bytes"), values.get("memory_limit_bytes")
    of = used / limit if used is not None and limit else None
    memory = f"{text.byte_size(used)} of {text.byte_size(limit)}" if limit else text.byte_size(used)
    rows = [
        ("CPU of all cores", text.share(values.get("cpu_share")), values.get("cpu_share"), "computing", "cpu_share"),
        ("cores of this job", _cores(values), None, "computing", "own_cpu_cores"),
        ("memory", memory, of, "copying", "memory_bytes"),
        *(
            (words, text.share(values.get(column)), values.get(column), "waiting", column)
            for words, column in (
                ("tasks that wait for a core", "pressure_cpu_share"),
                ("tasks that wait for a disk", "pressure_io_share"),
                ("tasks that wait for memory", "pressure_memory_share"),
            )
        ),
    ]
    table = Table(
        f"Host {text.name(rank.host or 'this machine')}",
        ("", "now"),
        tuple((words, shown) for words, shown, *_ in rows),
        frozenset({1}),
        tuple((share or 0.0, GROUP_COLOURS[group]) for *_, share, group, _ in rows),
    )
    missing = [
        f"{words}: {reason}"
        for words, _, _, _, column in rows
        if column not in values and (reason := _reason(rank.host_reasons, column))
    ]
    return [table, *_why(missing)]


def _cores(values: Mapping[str, float]) -> str:
    own, workers = values.get("own_cpu_cores"), values.get("worker_cpu_cores")
    if own is None:
        return text.NOTHING
    return f"{own:.2f}" + (f" and {workers:.2f} of its workers" if workers else "")


def _gpus(now: Now) -> list[Block]:
    devices = [(each, device) for each in now.ranks for device in each.devices]
    seen: dict[tuple[str, int], Device] = {}
    for each, device in devices:
        seen.setdefault((each.host, device.number), device)
    if not seen:
        reason = text.clean(next((each.no_devices for each in now.ranks if each.no_devices), "not sampled yet"), 200)
        return [Line("GPU", f"{text.NOTHING}: {reason}")]
    several = len({host for host, _ in seen}) > 1
    rows, bars, missing = [], [], []
    for (host, number), device in seen.items():
        label = f"{number}" + (f" on {text.name(host)}" if several else "")
        rows.append((label, *_device(device)))
        bars.append((device.newest.get("utilization_share", 0.0), GROUP_COLOURS["computing"]))
        missing += [f"GPU {label}, {words}: {why}" for words, why in _unread(device)]
    header = ("GPU", "time with a kernel", "memory", "power", "SM clock", "temperature", "held back by")
    return [Table("GPUs", header, tuple(rows), frozenset({1, 2, 3, 4, 5}), tuple(bars)), *_why(missing)]


def _device(device: Device) -> tuple[str, ...]:
    values = device.newest
    total = values.get("memory_total_bytes")
    memory = text.byte_size(values.get("memory_used_bytes")) + (f" of {text.byte_size(total)}" if total else "")
    reasons = values.get("throttle_reasons")
    return (
        text.share(values.get("utilization_share")),
        memory,
        _with_unit(values.get("power_w"), "W"),
        _with_unit(values.get("sm_clock_mhz"), "MHz"),
        _with_unit(values.get("temperature_c"), "C"),
        text.NOTHING if reasons is None else held_back(int(reasons)),
    )


def held_back(bits: int) -> str:
    """What holds a GPU's clock back, in words.

    Examples
    --------
    >>> held_back(0), held_back(0x24), held_back(0x400)
    ('nothing', 'power cap, heat (software)', 'bit 0x400')
    """
    known = [words for bit, words in _REASONS if bits & bit]
    unknown = bits & ~sum(bit for bit, _ in _REASONS)
    return ", ".join([*known, *([f"bit {unknown:#x}"] if unknown else [])]) or "nothing"


def _unread(device: Device) -> list[tuple[str, str]]:
    wanted = {
        "utilization_share": "time with a kernel",
        "memory_used_bytes": "memory",
        "power_w": "power",
        "sm_clock_mhz": "SM clock",
        "throttle_reasons": "held back by",
    }
    return [
        (words, reason)
        for column, words in wanted.items()
        if column not in device.newest and (reason := _reason(device.reasons, column))
    ]


def _reason(reasons: Mapping[str, str], column: str) -> str:
    return text.clean(reasons.get(column) or reasons.get("", ""), 200)


def _why(missing: list[str]) -> list[Block]:
    return [Section(f"Not read ({len(missing)})", (Items(tuple(missing)),))] if missing else []


def _with_unit(value: float | None, unit: str) -> str:
    return text.NOTHING if value is None else f"{value:,.0f} {unit}"
