"""What the name of a log's column means: quantity, number of the GPU and unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from perfnb.read.metric_names import BY_NAME, BY_QUANTITY, EXACT, IN_SNAPSHOTS, IN_SYSTEM, Kind, Quantity


@dataclass(frozen=True, slots=True)
class Meaning:
    """A column's quantity, the unit that its name states, and what stands behind a unit that only the source's code tells."""

    quantity: Quantity
    gpu: int | None = None
    unit: str | None = None
    source: str = ""


SUFFIXES: Final = MappingProxyType(
    {
        **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "in_s", "in_sec", "in_seconds"), "s"),
        **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds", "in_ms"), "ms"),
        **dict.fromkeys(("us", "usec", "usecs", "micros", "microsecond", "microseconds", "in_us"), "us"),
        **dict.fromkeys(("ns", "nsec", "nanos", "nanosecond", "nanoseconds"), "ns"),
        **dict.fromkeys(("b", "byte", "bytes"), "B"),
        **dict.fromkeys(("kib", "kibibytes"), "KiB"),
        **dict.fromkeys(("mib", "mebibytes"), "MiB"),
        **dict.fromkeys(("gib", "gibibytes"), "GiB"),
        # written KB, MB, GB: read as powers of 1024, as torch, psutil's users and nvidia-smi count; a note says so
        **dict.fromkeys(("kb", "kilobytes"), "KB?"),
        **dict.fromkeys(("mb", "megabytes"), "MB?"),
        **dict.fromkeys(("gb", "gigabytes"), "GB?"),
        **dict.fromkeys(("percent", "pct", "percentage", "perc"), "percent"),
        **dict.fromkeys(("share", "ratio", "fraction", "frac"), "share"),
        **dict.fromkeys(("w", "watt", "watts"), "W"),
        **dict.fromkeys(("mw", "milliwatts"), "mW"),
        **dict.fromkeys(("c", "celsius"), "C"),
        "mhz": "MHz",
    }
)
_RATE: Final = re.compile(r"_(?:per_s|per_sec|per_second|ps|rate|speed|bandwidth|bps)$")
_PREFIXES: Final = re.compile(
    r"^(?:train_samples|train|training|trainer|system|sys|perf|performance|timers?|timing|time|profile|profiler|metrics?|stats|memory|"
    r"device_stats_monitor_on_train_batch_(?:start|end)|loss_metrics|time_metrics)_"
)
_HELD_OUT: Final = re.compile(r"^(?:eval|val|valid|validation|dev|test)[_/.]", re.IGNORECASE)
_GPU_INSIDE: Final = re.compile(r"^(.*?)(?:(?<=_)|^)(?:gpus?|cuda|devices?)_?(\d{1,4})(?:_(.*))?$")
_GPU_AT_END: Final = re.compile(r"^(.*gpu.*?|memory_(?:allocated|reserved))_(\d{1,4})((?:_[a-z]+)?)$")
_NUMBER: Final = re.compile(r"(?<=gpu[._])(\d{1,4})(?=[._])")
_LONGEST: Final = 300  # a longer name is none that a tool gives: it is kept, and not looked up


def normalised(name: str) -> str:
    """A name in lower case, its words joined by single "_".

    Examples
    --------
    >>> normalised("Train/Step Time (ms)"), normalised("system.gpu.0.memoryAllocatedBytes"), normalised("disk read MB/s")
    ('train_step_time_ms', 'system_gpu_0_memory_allocated_bytes', 'disk_read_mb_per_s')
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    words = re.sub(r"/s(?:ec|econd)?\)?$", "_per_s", words.lower().replace("%", "_percent"))
    return re.sub(r"[^a-z0-9]+", "_", words).strip("_")


def meaning(name: str, origin: str = "training_metrics") -> Meaning | None:
    """What a column's name means, None where the table of names does not have it.

    Parameters
    ----------
    name
        The column as it is written.
    origin
        Which input it stands in: "training_metrics", "memory_snapshots" or "system_metrics".

    Examples
    --------
    >>> found = meaning("gpu_1_memory_used_mb")
    >>> found.quantity.name, found.gpu, found.unit
    ('gpu_memory_used', 1, 'MB?')
    >>> meaning("fwd_time").quantity.name, meaning("eval/loss").quantity.name, meaning("accuracy")
    ('forward_time', 'validation_loss', None)
    """
    if len(name) > _LONGEST:
        return None
    number = _NUMBER.search(name)
    exact = EXACT.get(name) or (EXACT.get(f"{name[: number.start()]}#{name[number.end() :]}") if number else None)
    if exact:
        return Meaning(BY_QUANTITY[exact[0]], int(number[0]) if number else None, exact[1], exact[2])
    plain = normalised(name)
    gpu: int | None = None
    if inside := _GPU_INSIDE.match(plain):
        before, digits, after = inside.groups()
        joined = "_".join(part for part in (before.rstrip("_"), "" if "gpu" in before else "gpu", after) if part)
        plain, gpu = joined, int(digits)
    elif at_end := _GPU_AT_END.match(plain):
        plain, gpu = at_end[1] + at_end[3], int(at_end[2])
    return _looked_up(plain, gpu, origin, is_held_out=bool(_HELD_OUT.match(name)))


def _looked_up(plain: str, gpu: int | None, origin: str, *, is_held_out: bool) -> Meaning | None:
    is_rate = bool(_RATE.search(plain))
    stem = _RATE.sub("", plain)
    for candidate, unit in _candidates(plain, stem, is_rate=is_rate):
        quantity = _named(candidate, origin)
        if quantity is None or (unit is not None and not _fits(quantity.kind, unit)):
            continue
        if is_held_out and quantity.name != "validation_loss":
            return None  # a time or speed of evaluation is none of training
        if gpu is not None and quantity.table not in ("gpu_samples", "allocator"):
            return None
        return Meaning(quantity, gpu, unit)
    if re.match(r"^lr_.+", plain) and gpu is None and not is_held_out:
        return Meaning(BY_QUANTITY["learning_rate"])  # Lightning's LearningRateMonitor: lr-AdamW, lr-AdamW/pg1
    return None


def _candidates(plain: str, stem: str, *, is_rate: bool) -> list[tuple[str, str | None]]:
    """Names to look up, with the unit that each leaves over; the whole name comes first."""
    found: list[tuple[str, str | None]] = [(plain, _stated(plain))]
    for text in (stem, plain):
        parts = text.split("_")
        for size in (2, 1):
            unit = SUFFIXES.get("_".join(parts[-size:])) if len(parts) > size else None
            if unit is not None:
                found.append(("_".join(parts[:-size]), f"{unit}/s" if is_rate and text is stem else unit))
    if parts[0] in ("sec", "seconds", "ms") and plain.partition("_")[2] in ("per_step", "per_iteration"):
        found.append((plain.partition("_")[2], SUFFIXES[parts[0]]))
    if is_rate:
        found.append((stem, "?/s"))
    return found


def _stated(plain: str) -> str | None:
    """The unit of a name that is in the table as a whole and ends in a unit."""
    return SUFFIXES.get(plain.rpartition("_")[2]) if plain.endswith(("_percent", "_percentage", "_share")) else None


def _named(plain: str, origin: str) -> Quantity | None:
    names = [plain]
    while (shorter := _PREFIXES.sub("", names[-1])) != names[-1]:
        names.append(shorter)
    for name in names:
        if origin == "memory_snapshots" and name in IN_SNAPSHOTS:
            return BY_QUANTITY[IN_SNAPSHOTS[name]]
        if origin == "system_metrics" and name in IN_SYSTEM:
            return BY_QUANTITY[IN_SYSTEM[name]]
        if name in BY_NAME and (name == plain or BY_NAME[name].kind != "moment"):  # train_runtime is no moment
            return BY_NAME[name]
    return None


def _fits(kind: Kind, unit: str) -> bool:
    """Whether a unit can be one of a kind: `gpu_memory_percent` is no size."""
    base = unit.removesuffix("/s").removesuffix("?")
    wanted = {
        "time": ("s", "ms", "us", "ns"),
        "moment": ("s", "ms", "us", "ns"),
        "bytes": ("B", "KiB", "MiB", "GiB", "KB", "MB", "GB"),
        "flow": ("B", "KiB", "MiB", "GiB", "KB", "MB", "GB", ""),
        "share": ("percent", "share"),
        "watt": ("W", "mW"),
        "celsius": ("C",),
        "megahertz": ("MHz",),
    }.get(kind, ())
    return base in wanted and (not unit.endswith("/s") or kind == "flow")
