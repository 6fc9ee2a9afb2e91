"""NVIDIA GPUs as rows of the table gpu_samples; whatever the driver refuses becomes a gap with its reason."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from perfnb.record.gaps import Gaps
from perfnb.record.nvml import STATIC, TABLE, Gpu, Metric, NotOfferedError, Value, metrics
from perfnb.record.rows import COLUMNS
from perfnb.record.sink import Row
from perfnb.record.visible_gpus import Found, all_found, chosen

MINUTE_NS: Final = 60_000_000_000
"""How often a GPU that rests is tried, and what hardly changes is asked for."""

FORKED: Final = "NVML was opened before this process was forked, and may not be used in it"

_COLUMNS: Final = COLUMNS[TABLE]


class _LostError(Exception):
    """The GPU itself does not answer."""


class _UninitializedError(Exception):
    """Somebody shut NVML down."""


class GpuCollector:
    """Rows about the GPUs that this process may use, by NVML.

    Errors are caught per metric and GPU: a metric that is not offered is asked for the older way and then dropped on that
    GPU; a GPU that is lost rests, is tried once a minute, and the others go on; without a driver it is said once.

    Parameters
    ----------
    interval_s
        Between two rows of a GPU.
    pcie
        Measure PCIe by a call that takes 20 ms for each direction and GPU. Hopper and newer tell it without.
    uuids
        Only these GPUs, with or without the `GPU-` in front, as torch's device properties have them. Else those that
        CUDA_VISIBLE_DEVICES names; where that cannot be resolved, all.
    """

    table = TABLE

    def __init__(self, *, interval_s: float = 1.0, pcie: bool = False, uuids: Iterable[str] | None = None) -> None:
        self.interval_s = interval_s
        self.gaps = Gaps()
        self._metrics = metrics(pcie=pcie)
        self._wanted = None if uuids is None else frozenset(map(_bare, uuids))
        self._nvml: Any = None
        self._gpus: list[Gpu] = []
        self._process = os.getpid()
        self._is_open = self._is_over = self._was_reopened = False

    def set_uuids(self, uuids: Iterable[str]) -> None:
        """Say which GPUs this process trains on; cheap, and from any thread. If none of them is known, all go on."""
        self._wanted = frozenset(map(_bare, uuids))

    def collect(self, now_ns: int) -> Mapping[str, Sequence[Row]]:
        """One row for each GPU that answers; none in a forked child."""
        if self._is_over or os.getpid() != self._process:
            return {}
        if not self._is_open and not self._open(now_ns):
            self._is_over = True
            return {}
        rows: list[Row] = []
        try:
            for gpu in self._asked():
                row = self._row(gpu, now_ns)
                if row is not None:
                    rows.append(row)
        except _UninitializedError:
            self._reopen(now_ns)
        return {self.table: rows}

    def close(self) -> None:
        """See `perfnb.record.collector.Collector`."""
        if os.getpid() != self._process or not self._is_open:
            return
        for gpu in self._gpus:
            with contextlib.suppress(self._nvml.NVMLError):
                gpu.close(self._nvml)
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()
        _opened.leave()
        self._is_open, self._is_over = False, True

    def abandon(self) -> None:
        """See `perfnb.record.collector.Collector`: no call reaches the driver."""
        for gpu in self._gpus:
            gpu.close(None)
        self._gpus, self._is_over = [], True

    def _open(self, now_ns: int) -> bool:
        try:
            import pynvml  # noqa: PLC0415 - only where it is used: a machine without it can still record
        except ImportError:
            return self._say("the package nvidia-ml-py is not installed", now_ns)
        if not _opened.enter():
            return self._say(FORKED, now_ns)
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            _opened.leave()
            return self._say(str(error), now_ns)
        self._is_open = True
        try:
            self._find(now_ns)
        except pynvml.NVMLError as error:
            self.close()
            return self._say(str(error), now_ns)
        return bool(self._gpus) or self._say("the driver knows of no GPU that this process may use", now_ns)

    def _find(self, now_ns: int) -> None:
        found = chosen(self._nvml, all_found(self._nvml), os.environ)
        self._gpus = [self._gpu(one, now_ns) for one in found]

    def _gpu(self, found: Found, now_ns: int) -> Gpu:
        gpu = Gpu(found.index, found.uuid, found.handle, found.memory_handle, self.gaps)
        if found.handle is None:
            self._lay_to_rest(gpu, found.reason, now_ns)
        return gpu

    def _asked(self) -> list[Gpu]:
        wanted = self._wanted
        if wanted is None:
            return self._gpus
        return [gpu for gpu in self._gpus if gpu.uuid is not None and _bare(gpu.uuid) in wanted] or self._gpus

    def _row(self, gpu: Gpu, now_ns: int) -> Row | None:
        gpu.now_ns = now_ns
        if now_ns < gpu.rests_until_ns:
            if gpu.rest is not None:
                gpu.rest.count += 1
            return None
        try:
            if gpu.handle is None:
                self._wake(gpu)
            if now_ns >= gpu.static_due_ns:
                gpu.static = self._ask(gpu, STATIC)
                gpu.static_due_ns = now_ns + MINUTE_NS
            values = {"gpu": gpu.index, "uuid": gpu.uuid, "time_ns": now_ns, **gpu.static, **self._ask(gpu, self._metrics)}
        except _LostError as error:
            self._lay_to_rest(gpu, str(error), now_ns)
            return None
        gpu.suspect = None
        for gap in gpu.lost.values():
            gap.count += 1
        return tuple(map(values.get, _COLUMNS))

    def _ask(self, gpu: Gpu, asked: Iterable[Metric]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for metric in asked:
            way = gpu.ways.get(metric.name, 0)
            while way < len(metric.ways):
                reason = self._try(gpu, metric, way, values)
                if reason is None:
                    break
                way += 1
                gpu.ways[metric.name] = way
                if way == len(metric.ways):
                    gpu.lose(metric.columns, reason)
        return values

    def _try(self, gpu: Gpu, metric: Metric, way: int, values: dict[str, Value]) -> str | None:
        """Put the values in, or give the reason why this way is not to be tried again."""
        nvml = self._nvml
        try:
            values.update(zip(metric.columns, metric.ways[way](nvml, gpu), strict=True))
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_UNINITIALIZED:
                raise _UninitializedError from error
            if error.value in _not_offered(nvml):
                return str(error)
            if error.value in _does_not_answer(nvml):
                if gpu.suspect == metric.name and error.value not in _is_gone(nvml):
                    return str(error)  # after a minute's rest the same one again: it is this metric, not the GPU
                gpu.suspect = metric.name
                message = str(error) if error.value in _is_gone(nvml) else f"{error} ({metric.name})"
                raise _LostError(message) from error
            for column in metric.columns:
                gpu.note(column, str(error))
        except NotOfferedError as reason:
            return str(reason)
        except Exception as error:  # noqa: BLE001 - a name that this version of pynvml lacks, bytes that are no text
            return f"{type(error).__name__}: {error}"
        return None

    def _wake(self, gpu: Gpu) -> None:
        """Ask for the handle of a GPU that rested."""
        nvml = self._nvml
        try:
            if gpu.uuid is None:
                gpu.handle = gpu.memory_handle = nvml.nvmlDeviceGetHandleByIndex(gpu.index)
                gpu.uuid = nvml.nvmlDeviceGetUUID(gpu.handle)
            else:
                gpu.memory_handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
                is_instance = gpu.uuid.startswith("MIG-")
                gpu.handle = (
                    nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu.memory_handle) if is_instance else gpu.memory_handle
                )
        except nvml.NVMLError as error:
            gpu.handle = gpu.memory_handle = None
            if error.value == nvml.NVML_ERROR_UNINITIALIZED:
                raise _UninitializedError from error
            raise _LostError(str(error)) from error

    def _lay_to_rest(self, gpu: Gpu, reason: str, now_ns: int) -> None:
        gpu.rests_until_ns = now_ns + MINUTE_NS
        gpu.close(None)  # its samples belong to a handle that may be gone
        gpu.rest = self.gaps.open(TABLE, None, gpu.index, reason, now_ns)
        gpu.rest.count += 1

    def _reopen(self, now_ns: int) -> None:
        """Open NVML once more after somebody shut it down."""
        nvml = self._nvml
        self.gaps.note(TABLE, None, None, "NVML was shut down by another part of this process", now_ns)
        if self._was_reopened:
            self._is_over = True
            return
        self._was_reopened = True
        try:
            nvml.nvmlInit()
            self._find(now_ns)
        except nvml.NVMLError as error:
            self._is_over = not self._say(str(error), now_ns)

    def _say(self, reason: str, now_ns: int) -> bool:
        self.gaps.note(TABLE, None, None, reason, now_ns)
        return False


class _Opened:
    """Which process has NVML open: what it holds does not survive a fork."""

    def __init__(self) -> None:
        self._process: int | None = None
        self._count = 0

    def enter(self) -> bool:
        """Count one more; False in a child of the process that has it open."""
        if self._count and self._process != os.getpid():
            return False
        self._process = os.getpid()
        self._count += 1
        return True

    def leave(self) -> None:
        """Count one less."""
        self._count -= 1


_opened: Final = _Opened()


def _bare(uuid: str) -> str:
    return str(uuid).removeprefix("GPU-")


def _not_offered(nvml: Any) -> tuple[int, ...]:
    return (
        nvml.NVML_ERROR_NOT_SUPPORTED,
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        nvml.NVML_ERROR_NO_PERMISSION,
        nvml.NVML_ERROR_INVALID_ARGUMENT,  # what older drivers answer to a version or a field that they do not know
        getattr(nvml, "NVML_ERROR_ARGUMENT_VERSION_MISMATCH", 25),  # nvml.h: 25, since 12.4
        getattr(nvml, "NVML_ERROR_DEPRECATED", 26),
    )


def _is_gone(nvml: Any) -> tuple[int, ...]:
    return nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED


def _does_not_answer(nvml: Any) -> tuple[int, ...]:
    return *_is_gone(nvml), nvml.NVML_ERROR_TIMEOUT, nvml.NVML_ERROR_UNKNOWN
