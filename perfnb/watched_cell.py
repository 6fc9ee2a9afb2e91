"""A cell that was watched, and the lines of its card that tell of the watch itself: host, memory, what went unseen, the cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from perfnb import text
from perfnb.document import Line
from perfnb.run import Run

MOST_PRESSURE: Final = 0.20
"""Share of time in which something waited for a core (PSI "some"), above which the host is too busy for a prediction."""

_IN_WORDS: Final = {"NVML Shared Library Not Found": "driver library not found"}
"""What the driver's library says, in words that say what is missing."""

TorchState = Literal["imported", "not installed", "imported late", "not used"]


@dataclass(frozen=True, slots=True, eq=False)
class WatchedCell:
    """A cell that was watched, and how it ended.

    Attributes
    ----------
    run
        What was recorded of it.
    seconds
        How long it was watched.
    error
        Name of the exception that ended it; empty where it succeeded.
    is_out_of_memory
        Whether that exception says that a device's memory was full.
    torch
        Whether torch was there to be watched: "imported", "not installed", "imported late" (by the cell itself, so that its
        first steps went unseen) or "not used".
    torch_version
        Version of torch where it was imported.
    other_process
        The magic that ran the cell in another process, such as "%%bash"; else empty.
    child_processes
        Processes that the cell started, without the workers of its loaders.
    host_cores
        Cores of the host, by which shares of its CPU become cores.
    says_no_device
        Whether the card says that there is no GPU.
    """

    run: Run
    seconds: float
    error: str = ""
    is_out_of_memory: bool = False
    torch: TorchState = "imported"
    torch_version: str = ""
    other_process: str = ""
    child_processes: int = 0
    host_cores: int = 1
    says_no_device: bool = False


def noise_of(run: Run, host_cores: int) -> str:
    r"""Whether the host was too busy to predict on, and with whose work; empty where it was not.

    Parameters
    ----------
    run
        A recorded run.
    host_cores
        Cores of the host.

    Returns
    -------
    str
        A sentence that names the load.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> line = "rank time_us pressure_cpu_share cpu_share own_cpu_cores worker_cpu_cores"
    >>> noise_of(Run(host_samples=table_from_text("host_samples", f"{line}\n0 0 0.34 0.9 1.0 0.2")), 4)
    'the host is busy (something waited for a core 34 % of the time) with other processes: 2.4 cores, this job 1.2'
    """
    samples = run.host_samples
    pressure = _mean(samples["pressure_cpu_share"])
    if pressure is None or pressure <= MOST_PRESSURE:
        return ""
    waited = f"the host is busy (something waited for a core {text.share(pressure)} of the time)"
    busy, own = _mean(samples["cpu_share"]), _mean(samples["own_cpu_cores"])
    if busy is None or own is None:
        return waited
    own += _mean(samples["worker_cpu_cores"]) or 0.0
    others = max(0.0, busy * host_cores - own)
    if others > own:
        return f"{waited} with other processes: {others:.1f} cores, this job {own:.1f}"
    return f"{waited} with this job itself: {own:.1f} cores, other processes {others:.1f}"


def memory_lines(run: Run) -> list[Line]:
    """The most device memory that was reserved and allocated, of what the device has; nothing where it was not recorded."""
    allocator = run.allocator.dropna(subset=["peak_reserved_bytes"])
    if allocator.empty:
        return []
    worst = allocator.iloc[int(allocator["peak_reserved_bytes"].to_numpy().argmax())]
    total = run.machine.device_memory_bytes
    device = 0 if pd.isna(worst["device"]) else int(worst["device"])
    of = f" of {text.byte_size(total[device])}" if device < len(total) else ""
    allocated = worst["peak_allocated_bytes"]
    said = f", {text.byte_size(float(allocated))} allocated" if pd.notna(allocated) else ""
    return [Line("memory", f"peak {text.byte_size(float(worst['peak_reserved_bytes']))}{of} reserved{said}")]


def watched_line(cell: WatchedCell) -> Line:
    """How much was watched, at what cost, on what.

    Parameters
    ----------
    cell
        The cell.

    Returns
    -------
    Line
        Steps, seconds, share of a step that perfnb's hooks took, torch, devices; what is not known is left out.

    Examples
    --------
    >>> print(watched_line(WatchedCell(Run(), 4.31, torch_version="2.13.0")).plain())
    watched 0 steps in 4.3 s, torch 2.13.0
    """
    run = cell.run
    pieces = [f"{text.count(len(run.steps), 'step')} in {cell.seconds:.1f} s"]
    hooks = [each.hook_us_per_step for each in run.recordings if each.hook_us_per_step is not None]
    if hooks and len(run.steps):
        pieces.append(f"cost of watching {text.share(max(hooks) / float(run.steps['duration_us'].mean()))} (calibrated)")
    if cell.torch_version:
        pieces.append(f"torch {text.name(cell.torch_version)}")
    pieces += [f"{number} x {text.name(name)}" for name, number in Counter(run.machine.devices).items()]
    return Line("watched", ", ".join(pieces))


def unseen_lines(cell: WatchedCell) -> list[Line]:
    """What went unseen in a cell, each in a line."""
    lines = []
    if cell.torch == "not installed":
        install = "pip install 'perfnb[torch]' (no GPU here: environment.md first)"
        lines.append(Line("", f"torch is not installed: no step times. {install}"))
    if cell.torch == "imported late" and len(cell.run.steps):
        lines.append(Line("", "torch was imported inside this cell: run the cell once more, to see all its steps"))
    if cell.child_processes:
        processes = text.count(cell.child_processes, "child process", "child processes")
        lines.append(Line("", f"{processes} not watched: record in the script, read the run folder"))
    if cell.says_no_device and (reason := cell.run.missing.get("gpu_samples")):
        words = _IN_WORDS.get(reason, text.clean(reason))
        lines.append(Line("", f"No NVIDIA GPU ({words}): device detectors not measured"))
    return lines


def host_lines(cell: WatchedCell) -> list[Line]:
    """What the samples of the host say, where there are no steps to judge."""
    samples = cell.run.host_samples
    shares = {"CPU busy": samples["cpu_share"], "something waited for a core": samples["pressure_cpu_share"]}
    means = {words: _mean(values) for words, values in shares.items()}
    said = [f"{words} {text.share(mean)} of the time" for words, mean in means.items() if mean is not None]
    return [Line("host", ", ".join(said))] if said else []


def _mean(values: pd.Series) -> float | None:
    known = values.dropna()
    return float(known.mean()) if len(known) else None
