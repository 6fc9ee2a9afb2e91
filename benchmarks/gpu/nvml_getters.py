"""Every function of NVML that perfnb asks, as the rows of a recorded fixture: what it gives, or the error code."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

SUCCESS: Final = 0
Row = tuple[int, int, str, int, int, list[float], str]
"""Tick, device, function, argument, return code, values, string; described in tests/record/nvml_callbacks.py."""

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
GPM_METRICS: Final = (
    "NVML_GPM_METRIC_SM_UTIL",
    "NVML_GPM_METRIC_ANY_TENSOR_UTIL",
    "NVML_GPM_METRIC_DRAM_BW_UTIL",
    "NVML_GPM_METRIC_PCIE_TX_PER_SEC",
    "NVML_GPM_METRIC_PCIE_RX_PER_SEC",
    "NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC",
    "NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC",
)


@dataclass(frozen=True, slots=True)
class Getter:
    """One question to the driver.

    Attributes
    ----------
    function, argument
        As a row names them.
    ask
        Gives values and string.
    once
        Whether it hardly changes, so that the first poll asks it alone.
    slow
        Whether it takes long, so that one poll in ten asks it.
    """

    function: str
    argument: int
    ask: Callable[[Any], tuple[Sequence[float], str]]
    once: bool = False
    slow: bool = False


def getters(nvml: Any) -> list[Getter]:
    """All but GPM, whose metrics come together."""

    def one(name: str, call: Callable[[Any], Any], *, argument: int = 0, **kind: bool) -> Getter:
        return Getter(name, argument, lambda handle: ([call(handle)], ""), **kind)

    def fields(name: str, call: Callable[[Any], Any], *names: str, **kind: bool) -> Getter:
        def ask(handle: Any) -> tuple[Sequence[float], str]:
            struct = call(handle)
            return [int(getattr(struct, field)) for field in names], ""

        return Getter(name, 0, ask, **kind)

    def processes(version: str) -> Getter:
        name = f"nvmlDeviceGetComputeRunningProcesses_{version}"
        return Getter(name, 0, lambda handle: (_pairs(getattr(nvml, name)(handle)), ""))

    def power(handle: Any) -> tuple[Sequence[float], str]:
        field = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])[0]
        if field.nvmlReturn != SUCCESS:
            raise nvml.NVMLError(field.nvmlReturn)
        return [field.value.uiVal], ""

    sensor = nvml.NVML_TEMPERATURE_GPU
    clocks = [
        one("nvmlDeviceGetClockInfo", lambda handle, kind=kind: nvml.nvmlDeviceGetClockInfo(handle, kind), argument=kind)
        for kind in (nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM)
    ]
    pcie = [
        one(
            "nvmlDeviceGetPcieThroughput",
            lambda handle, kind=kind: nvml.nvmlDeviceGetPcieThroughput(handle, kind),
            argument=kind,
            slow=True,
        )
        for kind in (nvml.NVML_PCIE_UTIL_TX_BYTES, nvml.NVML_PCIE_UTIL_RX_BYTES)
    ]
    plain = [
        one(name, getattr(nvml, name), once=once)
        for name, once in (
            ("nvmlDeviceGetPowerUsage", False),
            ("nvmlDeviceGetTotalEnergyConsumption", False),
            ("nvmlDeviceGetCurrentClocksEventReasons", False),
            ("nvmlDeviceGetCurrentClocksThrottleReasons", False),
            ("nvmlDeviceGetEnforcedPowerLimit", True),
            ("nvmlDeviceGetPowerManagementLimit", True),
        )
        if hasattr(nvml, name)
    ]
    memory = ("total", "reserved", "free", "used")
    return [
        Getter("nvmlDeviceGetUUID", 0, lambda handle: ([], _nameless(nvml.nvmlDeviceGetUUID(handle))), once=True),
        Getter("nvmlDeviceGetName", 0, lambda handle: ([], str(nvml.nvmlDeviceGetName(handle))), once=True),
        Getter("nvmlDeviceGetMigMode", 0, lambda handle: (list(nvml.nvmlDeviceGetMigMode(handle)), ""), once=True),
        fields("nvmlGpmQueryDeviceSupport", nvml.nvmlGpmQueryDeviceSupport, "isSupportedDevice", once=True),
        fields("nvmlDeviceGetUtilizationRates", nvml.nvmlDeviceGetUtilizationRates, "gpu", "memory"),
        fields("nvmlDeviceGetMemoryInfo", nvml.nvmlDeviceGetMemoryInfo, "total", "free", "used"),
        fields("nvmlDeviceGetMemoryInfo_v2", lambda handle: nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2), *memory),
        processes("v3"),
        processes("v2"),
        Getter("nvmlDeviceGetFieldValues", nvml.NVML_FI_DEV_POWER_INSTANT, power),
        *plain,
        *(
            one(name, lambda handle, name=name: getattr(nvml, name)(handle, sensor), argument=sensor)
            for name in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature")
            if hasattr(nvml, name)
        ),
        *clocks,
        *pcie,
    ]


class Recorder:
    """Asks all getters of one device and keeps what changed, and how long each call took.

    Attributes
    ----------
    rows
        The fixture.
    latency_us
        Name of a getter to the time of each of its calls.
    changes
        Name of a getter to the moments (seconds) at which its value was another than before.
    """

    def __init__(self, nvml: Any, handle: Any, device: int = 0) -> None:
        self.rows: list[Row] = [
            (0, -1, "nvmlDeviceGetCount_v2", 0, SUCCESS, [device + 1], ""),
            (0, device, "nvmlDeviceGetHandleByIndex_v2", 0, SUCCESS, [], ""),
        ]
        self.latency_us: dict[str, list[float]] = {}
        self.changes: dict[str, list[float]] = {}
        self.asked = getters(nvml)
        self._nvml, self._handle, self._device = nvml, handle, device
        self._last: dict[tuple[str, int], tuple[int, list[float], str]] = {}
        self._samples: list[Any] = []
        self._has_gpm = True

    def poll(self, tick: int) -> None:
        """Ask everything that is due at a tick."""
        for getter in self.asked:
            if (getter.once and tick) or (getter.slow and tick % 10):
                continue
            self.ask(getter, tick)
        if self._has_gpm:
            self._gpm(tick)

    def ask(self, getter: Getter, tick: int) -> None:
        """Ask one getter."""
        start = time.perf_counter()
        try:
            values, text = getter.ask(self._handle)
            answer = (SUCCESS, [_number(value) for value in values], text)
        except self._nvml.NVMLError as error:
            answer = (int(error.value), [], "")
        except Exception as error:  # noqa: BLE001 - a name that this binding lacks
            answer = (int(getattr(self._nvml, "NVML_ERROR_FUNCTION_NOT_FOUND", 13)), [], type(error).__name__)
        self._keep(tick, getter.function, getter.argument, answer, start)

    def _gpm(self, tick: int) -> None:
        """Ask for all metrics between two samples."""
        nvml, start = self._nvml, time.perf_counter()
        try:
            if not self._samples:
                if not nvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
                    self._has_gpm = False
                    return
                self._samples = [nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()]
                nvml.nvmlGpmSampleGet(self._handle, self._samples[0])
                self._keep(tick, "nvmlGpmSampleGet", 0, (SUCCESS, [], ""), start)
                return
            nvml.nvmlGpmSampleGet(self._handle, self._samples[1])
            names = [name for name in GPM_METRICS if hasattr(nvml, name)]
            asked = nvml.c_nvmlGpmMetricsGet_t()
            asked.version, asked.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, len(names)
            asked.sample1, asked.sample2 = self._samples
            for position, name in enumerate(names):
                asked.metrics[position].metricId = getattr(nvml, name)
            nvml.nvmlGpmMetricsGet(asked)
            self._samples.reverse()
        except nvml.NVMLError as error:
            self._has_gpm = False
            self._keep(tick, "nvmlGpmSampleGet", 0, (int(error.value), [], ""), start)
            return
        for metric in asked.metrics[: asked.numMetrics]:
            code = int(metric.nvmlReturn)
            answer = (code, [float(metric.value)] if code == SUCCESS else [], "")
            self._keep(tick, "nvmlGpmMetricsGet", int(metric.metricId), answer, start)

    def _keep(self, tick: int, function: str, argument: int, answer: tuple[int, list[float], str], start: float) -> None:
        now = time.perf_counter()
        name = f"{function}({argument})"
        self.latency_us.setdefault(name, []).append((now - start) * 1e6)
        if self._last.get((function, argument)) == answer:
            return
        if (function, argument) in self._last:
            self.changes.setdefault(name, []).append(now)
        self._last[function, argument] = answer
        self.rows.append((tick, self._device, function, argument, *answer))

    def close(self) -> None:
        """Give the samples back."""
        for sample in self._samples:
            self._nvml.nvmlGpmSampleFree(sample)
        self._samples = []


def _pairs(listed: Sequence[Any]) -> list[float]:
    """Processes as a row holds them: number 0 is the one that asks, others are numbered anew; -1 bytes are "not told"."""
    pairs: list[float] = []
    for number, process in enumerate(sorted(listed, key=lambda each: each.pid != os.getpid()), start=1):
        held = process.usedGpuMemory
        pairs += [0 if process.pid == os.getpid() else number, -1 if held is None else held]
    return pairs


def _nameless(uuid: str) -> str:
    return _UUID.sub("00000000-0000-0000-0000-000000000000", str(uuid))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, float) else int(value)
