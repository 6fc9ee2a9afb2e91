"""probe_dataset(): what loading costs per sample and per worker, measured once so that other loader settings can be predicted."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pandas as pd
from tqdm.auto import tqdm

from perfnb.errors import RecordingError
from perfnb.record.header import rank_and_world_size
from perfnb.record.host_files import storage_and_calls
from perfnb.record.loader_probe_quiet import Load, LoadMeter, wait_until_quiet
from perfnb.record.loader_probe_result import PREFIX, PROBE, LoaderProbe, NotProbed
from perfnb.record.loader_probe_samples import Timed, alike, is_iterable, tensors_of, time_batches
from perfnb.record.loader_probe_states import kept_states
from perfnb.record.loader_probe_waits import after_wait
from perfnb.record.loader_probe_workers import worker_costs
from perfnb.tables import conform

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory; only its free space is asked for
_BAR: Final = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:g} s{postfix}"


def probe_dataset(
    data: Any,
    *,
    batch_size: int | None = None,
    sharded: bool = False,
    longest_s: float = 30.0,
    half_width: float = 0.03,
    quiet_s: float = 60.0,
    only_when_quiet: bool = True,
    progress: bool = True,
) -> LoaderProbe | NotProbed:
    """Times of single samples of a dataset, and of handing its batches from a worker to the training, on this machine.

    With it `predict` answers for `num_workers`, `prefetch_factor`, `in_order`, `persistent_workers` and `cache_samples` what the
    run alone does not tell: `perfnb.predict(probe.attach(run), {"num_workers": 4})`.

    It reads samples as the training does, in the order of the loader's own sampler, none twice, with one thread as in a worker,
    until the mean batch is known well enough. Then it starts one worker on copies of a batch. It trains nothing, writes nothing,
    and puts every random state back. Interrupting it is safe: the states are put back and its worker is stopped.

    Parameters
    ----------
    data
        The training's `torch.utils.data.DataLoader`, or its dataset.
    batch_size
        Samples of a batch; needed with a dataset, not with a loader.
    sharded
        Whether an iterable dataset gives each worker its own part of the samples. Without that workers repeat one another's
        samples, and nothing can be said about them.
    longest_s
        Seconds after which no further batch is begun.
    half_width
        95 % half-width of the mean batch, as a share of it, at which to stop.
    quiet_s
        Seconds to wait at most until others leave the machine's cores alone.
    only_when_quiet
        Whether nothing is measured on a machine that stays busy. If it is measured all the same, the figures of the load are kept
        with the probe, and `predict` refuses to rest on it.
    progress
        Whether a progress bar is shown.

    Returns
    -------
    LoaderProbe or NotProbed
        NotProbed where the machine stays busy, or nothing can be timed, with the reason.

    Raises
    ------
    RecordingError
        If an argument makes no sense. Errors of the dataset itself are passed on as they are.

    Examples
    --------
    >>> import perfnb
    >>> probe = perfnb.probe_dataset(loader)  # doctest: +SKIP
    >>> perfnb.predict(probe.attach(run), {"num_workers": 4})  # doctest: +SKIP
    """
    loader = _loader(data, batch_size)
    for name, value in (("longest_s", longest_s), ("half_width", half_width)):
        if not value > 0.0:
            message = f"{name}={value!r} is no limit: give a number above 0"
            raise RecordingError(message)
    if is_iterable(loader.dataset) and not sharded:
        return NotProbed(
            "the dataset is iterable: each worker would give all of its samples, unless it hands each worker a part; "
            "if it does, say sharded=True"
        )
    import torch  # noqa: PLC0415 - torch only where something is measured

    meter = LoadMeter()
    with tqdm(total=quiet_s, desc="waiting for a quiet machine", bar_format=_BAR, leave=False, disable=not progress) as bar:
        before = wait_until_quiet(quiet_s, meter, waited=bar.update)
    if only_when_quiet and not before.is_quiet:
        return NotProbed(
            f"the machine stayed busy for {quiet_s:g} s: {before}; times taken now would tell of that. Stop what else runs, "
            "or wait longer with quiet_s="
        )
    owners = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None), loader.dataset)
    with kept_states(*owners):
        with tqdm(total=longest_s, desc="timing samples", bar_format=_BAR, leave=False, disable=not progress) as bar:
            read = _storage_bytes()
            timed = time_batches(loader, longest_s=longest_s, half_width=half_width, told=_shown(bar))
        during = meter.read()
        if not timed.batch_us:
            return NotProbed("the loader gave fewer than two batches of fresh samples, and the first one only warms up")
        stored = (_storage_bytes() - read) / (len(timed.batch_us) + 1)  # the first batch warms up and reads too
        constants, notes = _constants(loader, timed, progress=progress)
        constants |= after_wait(torch, timed.mean_us)
        constants |= _about_samples(loader, timed) | ({"storage_bytes": stored} if math.isfinite(stored) else {})
    constants |= _about(loader, before, during)
    return LoaderProbe(
        _table(timed),
        MappingProxyType({f"{PREFIX}{name}": value for name, value in constants.items()}),
        timed.mean_us,
        timed.half_width_share,
        timed.stopped,
        tuple(notes),
    )


def _loader(data: Any, batch_size: int | None) -> Any:
    from torch.utils.data import DataLoader  # noqa: PLC0415 - torch only where something is measured

    if isinstance(data, DataLoader):
        if batch_size is not None:
            message = f"batch_size={batch_size} beside a DataLoader, which has its own ({data.batch_size}): leave it out"
            raise RecordingError(message)
        return data
    if not hasattr(data, "__getitem__") and not is_iterable(data):
        message = f"probe_dataset takes a torch.utils.data.DataLoader or a dataset, not {type(data).__name__}"
        raise RecordingError(message)
    if batch_size is None or batch_size < 1:
        message = "a dataset alone does not say how its samples are batched: pass the DataLoader, or batch_size="
        raise RecordingError(message)
    return DataLoader(data, batch_size=batch_size, drop_last=True, shuffle=not is_iterable(data))


def _shown(bar: tqdm[Any]) -> Callable[[Timed], None]:
    def told(timed: Timed) -> None:
        bar.update(timed.batch_us[-1] / 1e6 if timed.batch_us else 0.0)
        if not math.isnan(timed.half_width_share):
            bar.set_postfix_str(f"{timed.mean_us / 1e3:.2f} ms a batch +- {timed.half_width_share:.0%}", refresh=False)

    return told


def _constants(loader: Any, timed: Timed, *, progress: bool) -> tuple[dict[str, float], list[str]]:
    """What workers cost, or a note on why that could not be measured."""
    notes = []
    if timed.repeated:
        notes.append(f"{timed.repeated} batches held samples that were read before and were left out")
    if any(getattr(each, "is_cuda", False) for each in tensors_of(timed.last)):
        notes.append("the dataset gives tensors on the GPU, which workers cannot hand over")
        return {"on_device": 1.0}, notes
    with tqdm(desc="timing a worker", unit="batch", leave=False, disable=not progress) as bar:
        try:
            return dict(worker_costs(loader, timed.last, shared_bytes=_shared_bytes(), told=bar.update)), notes
        except (RuntimeError, OSError, TypeError, ValueError, AttributeError) as error:  # what a batch that cannot be sent raises
            notes.append(f"no worker could be timed: {type(error).__name__}: {str(error)[:200]}")
            return {}, notes


def _about(loader: Any, before: Load, during: Load) -> dict[str, float]:
    """What the batch is, what limits the workers here, and how quiet the machine was."""
    import torch  # noqa: PLC0415 - torch only where something is measured

    found = {
        "foreign_cores": max(before.foreign_cores, during.foreign_cores),
        "is_iterable": float(is_iterable(loader.dataset)),
        "uses_descriptors": float(torch.multiprocessing.get_sharing_strategy() == "file_descriptor"),
        "shared_memory_bytes": _shared_bytes(),
        "descriptors": _descriptors(),
        "memory_bytes": _memory_bytes(),
        "batch_size": float(loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or math.nan),
        "pressure_cpu_share": max(before.pressure_share, during.pressure_share),
        "delay_share": max(before.delay_share, during.delay_share),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _about_samples(loader: Any, timed: Timed) -> dict[str, float]:
    """Size of all samples of the dataset, and whether one that is read twice differs; what cannot be told is left out."""
    if timed.rows[0][1] != "sample" or is_iterable(loader.dataset):
        return {}
    sizes = [size for _, part, _, _, size in timed.rows if part == "sample"]
    again = [loader.dataset[timed.last_index] for _ in range(2)]
    found = {"is_random": float(not alike(*again))}
    try:
        found["set_bytes"] = len(loader.dataset) * math.fsum(sizes) / len(sizes)
    except (TypeError, NotImplementedError):  # a dataset without a length, asked by a sampler of its own
        return found
    return found


def _storage_bytes() -> float:
    """Bytes that this process has read from storage; NaN where the system does not tell."""
    try:
        return float(storage_and_calls(Path("/proc/self/io").read_bytes())[0])
    except (OSError, IndexError, ValueError):
        return math.nan


def _shared_bytes() -> float:
    """Free shared memory; infinite where the system has no such limit."""
    try:
        free = os.statvfs(SHARED_MEMORY)
    except (AttributeError, OSError):
        return math.inf
    return float(free.f_bavail * free.f_frsize)


def _descriptors() -> float:
    """Descriptors that a process may hold; infinite where there is no limit."""
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return math.inf if limit == resource.RLIM_INFINITY else float(limit)


def _memory_bytes() -> float:
    """Memory of the host that is free to be taken."""
    import psutil  # noqa: PLC0415 - only where something is measured

    return float(psutil.virtual_memory().available)


def _table(timed: Timed) -> pd.DataFrame:
    frame = pd.DataFrame(timed.rows, columns=["batch", "part", "wall_us", "cpu_us", "bytes"])
    loads = frame["part"].ne("collate")
    return conform(
        "loader_samples",
        frame.assign(
            rank=rank_and_world_size()[0],
            position=range(len(frame)),
            cpu_us=frame["cpu_us"].where(~loads, frame["cpu_us"] * timed.cpu_factor),
            source=PROBE,
        ),
    )
