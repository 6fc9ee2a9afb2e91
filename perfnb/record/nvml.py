"""What NVML tells of one GPU: each metric with the ways to ask for it, the newest first."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from perfnb.record.gaps import Gap, Gaps

TABLE: Final = "gpu_samples"
UNDER_MIG: Final = "not available under MIG"
NOT_LISTED: Final = "not in the driver's process list (a container has its own numbers, and a process without a context has none)"
OLD_MEMORY: Final = "this driver counts what it reserves as used (NVML memory information version 1)"
WITHHELD: Final = "the driver lists the process without its memory"

_MEBIBYTE: Final = 1 << 20
_PCIE_UNIT_BYTES: Final = 1000  # nvml.h, nvmlDeviceGetPcieThroughput: "in KB/s"

Value = float | int | None
Way = Callable[[Any, "Gpu"], Sequence[Value]]
"""Values of a metric's columns, given the module pynvml and a GPU."""


class NotOfferedError(Exception):
    """A way that does not exist here, in words; the next one is tried."""


class Gpu:
    """One GPU, or one MIG instance of it, and what was learnt of it.

    Attributes
    ----------
    index
        Its number, as the driver counts.
    uuid
        What it is known by; None while the driver has not told.
    handle
        NVML's handle of the whole GPU; None while it rests.
    memory_handle
        The handle of which memory and processes are asked: the MIG instance's, if one was named.
    is_split
        Whether it is split into MIG instances.
    rests_until_ns
        It is not asked before.
    ways
        Name of a metric to the way that is tried next, where it is not the first.
    lost
        Columns that are not asked for any more, and their gaps.
    suspect
        Metric whose failure laid the whole GPU to rest last.
    static
        Values that are asked for once a minute.
    """

    __slots__ = (
        "_gaps", "_monitoring", "handle", "index", "is_split", "lost", "memory_handle", "now_ns", "rest", "rests_until_ns",
        "static", "static_due_ns", "suspect", "uuid", "ways",
    )  # fmt: skip

    def __init__(self, index: int, uuid: str | None, handle: Any, memory_handle: Any, gaps: Gaps) -> None:
        self.index, self.uuid, self.handle, self.memory_handle = index, uuid, handle, memory_handle
        self.is_split = False
        self.rests_until_ns = self.static_due_ns = self.now_ns = 0
        self.rest: Gap | None = None
        self.ways: dict[str, int] = {}
        self.lost: dict[str, Gap] = {}
        self.suspect: str | None = None
        self.static: dict[str, Value] = {}
        self._gaps = gaps
        self._monitoring: Monitoring | None = None

    def note(self, column: str | None, reason: str) -> None:
        """Count one missing value."""
        self._gaps.note(TABLE, column, self.index, reason, self.now_ns)

    def lose(self, columns: Sequence[str], reason: str) -> None:
        """Ask for these columns no more."""
        for column in columns:
            self.lost[column] = self._gaps.open(TABLE, column, self.index, reason, self.now_ns)

    def monitoring(self, nvml: Any) -> Monitoring:
        """Its performance monitoring, opened at the first call."""
        if self._monitoring is None:
            self._monitoring = Monitoring(nvml, self)
        return self._monitoring

    def close(self, nvml: Any | None) -> None:
        """Give back what belongs to the handles; without the module they are only forgotten."""
        monitoring, self._monitoring = self._monitoring, None
        if monitoring is not None and nvml is not None:
            monitoring.close(nvml)
        self.handle = self.memory_handle = None


class Monitoring:
    """Performance monitoring by NVML (GPM, Hopper and newer): means between two samples.

    Raises
    ------
    NotOfferedError
        If the GPU has none.
    """

    def __init__(self, nvml: Any, gpu: Gpu) -> None:
        if gpu.is_split:
            raise NotOfferedError(UNDER_MIG)
        if not nvml.nvmlGpmQueryDeviceSupport(gpu.handle).isSupportedDevice:
            message = "the GPU has no performance monitoring by NVML (GPM): Hopper and newer have"
            raise NotOfferedError(message)
        self._samples = [nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()]
        self._is_first = True

    def values(self, nvml: Any, gpu: Gpu, columns: Mapping[str, tuple[str, float]]) -> Sequence[Value]:
        """Means since the last call; all None at the first."""
        before, after = self._samples
        nvml.nvmlGpmSampleGet(gpu.handle, after)
        self._samples.reverse()
        if self._is_first:
            self._is_first = False
            return [None] * len(columns)
        asked = nvml.c_nvmlGpmMetricsGet_t()
        asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
        asked.numMetrics = len(columns)
        asked.sample1, asked.sample2 = before, after
        for position, (metric, _) in enumerate(columns.values()):
            asked.metrics[position].metricId = getattr(nvml, metric)
        nvml.nvmlGpmMetricsGet(asked)
        values: list[Value] = []
        for found, (column, (_, scale)) in zip(asked.metrics, columns.items(), strict=False):
            is_there = found.nvmlReturn == nvml.NVML_SUCCESS
            values.append(found.value * scale if is_there else None)
            if not is_there:
                gpu.note(column, str(nvml.NVMLError(found.nvmlReturn)))
        return values

    def close(self, nvml: Any) -> None:
        """Free the samples."""
        for sample in self._samples:
            nvml.nvmlGpmSampleFree(sample)
        self._samples = []


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that is asked for together.

    Attributes
    ----------
    name
        What it is.
    columns
        Columns of gpu_samples that it fills.
    ways
        How it is asked for, the newest way first.
    """

    name: str
    columns: tuple[str, ...]
    ways: tuple[Way, ...]


GPM_PCIE: Final[Mapping[str, tuple[str, float]]] = {
    "pcie_receive_bytes_per_s": ("NVML_GPM_METRIC_PCIE_RX_PER_SEC", _MEBIBYTE),  # nvml.h: MiB/s
    "pcie_send_bytes_per_s": ("NVML_GPM_METRIC_PCIE_TX_PER_SEC", _MEBIBYTE),
}
GPM: Final[Mapping[str, tuple[str, float]]] = {
    "sm_active_share": ("NVML_GPM_METRIC_SM_UTIL", 0.01),  # nvml.h: percent
    "tensor_active_share": ("NVML_GPM_METRIC_ANY_TENSOR_UTIL", 0.01),
    "dram_active_share": ("NVML_GPM_METRIC_DRAM_BW_UTIL", 0.01),
    "nvlink_receive_bytes_per_s": ("NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC", _MEBIBYTE),
    "nvlink_send_bytes_per_s": ("NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC", _MEBIBYTE),
}
"""Column to the metric's name in nvml.h and what one of it is worth."""


def metrics(*, pcie: bool) -> tuple[Metric, ...]:
    """What each row asks for.

    Parameters
    ----------
    pcie
        Whether PCIe is measured by a call that takes 20 ms for each direction; else it comes from GPM where that is offered.
    """
    monitored = GPM if pcie else {**GPM, **GPM_PCIE}
    return (
        Metric("memory", ("memory_used_bytes", "memory_total_bytes", "memory_reserved_bytes"), (_memory_v2, _memory_v1)),
        Metric("utilization", ("utilization_share", "memory_utilization_share"), (_utilization,)),
        Metric("process", ("process_memory_bytes",), (_processes("v3"), _processes("v2"))),
        Metric("power", ("power_w",), (_power_instant, _power_mean)),
        Metric("energy", ("energy_j",), (lambda nvml, gpu: (nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle) / 1000,),)),
        Metric(
            "temperature",
            ("temperature_c",),
            (_temperature("nvmlDeviceGetTemperatureV"), _temperature("nvmlDeviceGetTemperature")),
        ),
        Metric("sm_clock", ("sm_clock_mhz",), (_clock("NVML_CLOCK_SM"),)),
        Metric("memory_clock", ("memory_clock_mhz",), (_clock("NVML_CLOCK_MEM"),)),
        Metric("throttling", ("throttle_reasons",), (_reasons("Event"), _reasons("Throttle"))),
        Metric("monitoring", tuple(monitored), (lambda nvml, gpu: gpu.monitoring(nvml).values(nvml, gpu, monitored),)),
        *((Metric("pcie", tuple(GPM_PCIE), (_pcie,)),) if pcie else ()),
    )


def _note_split(nvml: Any, gpu: Gpu) -> Sequence[Value]:
    gpu.is_split = nvml.nvmlDeviceGetMigMode(gpu.handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    return ()


STATIC: Final = (
    Metric("split", (), (_note_split,)),
    Metric(
        "power_limit",
        ("power_limit_w",),
        (
            lambda nvml, gpu: (nvml.nvmlDeviceGetEnforcedPowerLimit(gpu.handle) / 1000,),
            lambda nvml, gpu: (nvml.nvmlDeviceGetPowerManagementLimit(gpu.handle) / 1000,),
        ),
    ),
)
"""What is asked for once a minute."""


def _memory_v2(nvml: Any, gpu: Gpu) -> Sequence[Value]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu.memory_handle, nvml.nvmlMemory_v2)
    return memory.used, memory.total, memory.reserved


def _memory_v1(nvml: Any, gpu: Gpu) -> Sequence[Value]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu.memory_handle)
    gpu.note("memory_reserved_bytes", OLD_MEMORY)
    return memory.used, memory.total, None


def _utilization(nvml: Any, gpu: Gpu) -> Sequence[Value]:
    if gpu.is_split:
        raise NotOfferedError(UNDER_MIG)
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu.handle)
    return rates.gpu / 100, rates.memory / 100


def _processes(version: str) -> Way:
    def ask(nvml: Any, gpu: Gpu) -> Sequence[Value]:
        listed = getattr(nvml, f"nvmlDeviceGetComputeRunningProcesses_{version}")(gpu.memory_handle)
        own = [process.usedGpuMemory for process in listed if process.pid == os.getpid()]
        if None in own:  # all ones: the driver does not say
            gpu.note("process_memory_bytes", WITHHELD)
            return (None,)
        if not own:
            gpu.note("process_memory_bytes", NOT_LISTED)
            return (None,)
        return (sum(own),)

    return ask


def _power_instant(nvml: Any, gpu: Gpu) -> Sequence[Value]:
    field = nvml.nvmlDeviceGetFieldValues(gpu.handle, [nvml.NVML_FI_DEV_POWER_INSTANT])[0]
    if field.nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(field.nvmlReturn)
    return (field.value.uiVal / 1000,)


def _power_mean(nvml: Any, gpu: Gpu) -> Sequence[Value]:
    return (nvml.nvmlDeviceGetPowerUsage(gpu.handle) / 1000,)


def _temperature(function: str) -> Way:
    return lambda nvml, gpu: (float(getattr(nvml, function)(gpu.handle, nvml.NVML_TEMPERATURE_GPU)),)


def _clock(kind: str) -> Way:
    return lambda nvml, gpu: (float(nvml.nvmlDeviceGetClockInfo(gpu.handle, getattr(nvml, kind))),)


def _reasons(word: str) -> Way:
    return lambda nvml, gpu: (getattr(nvml, f"nvmlDeviceGetCurrentClocks{word}Reasons")(gpu.handle),)


def _pcie(nvml: Any, gpu: Gpu) -> Sequence[Value]:
    directions = nvml.NVML_PCIE_UTIL_RX_BYTES, nvml.NVML_PCIE_UTIL_TX_BYTES
    return [nvml.nvmlDeviceGetPcieThroughput(gpu.handle, direction) * _PCIE_UNIT_BYTES for direction in directions]
