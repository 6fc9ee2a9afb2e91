"""A fake of NVML made of C callbacks, and the format of recorded NVML data that it and the compiled fake answer from.

The format: JSON lines, plain or gzipped, one array per line and call:

    [tick, device, function, argument, return code, values, string]

tick      number of the poll, from 0. The latest row at or before the present tick answers,
          of two of one tick the later line.
device    number of the GPU as the driver counts, a number past the last GPU for a MIG instance, -1 for the whole library.
function  the symbol that was called ("nvmlDeviceGetPowerUsage"), with its version ("nvmlDeviceGetMemoryInfo_v2").
argument  what chooses among a function's values: clock, temperature sensor, PCIe counter, field, GPM metric; else 0.
          For fields and GPM metrics the return code is the one of that field or metric.
values    numbers in the order of the function's results or of the fields of its struct (VALUES below), in the driver's units.
          Processes are pairs (number, bytes): number 0 stands for the process that asks, bytes -1 for "not told" (all ones).
string    the text that the function gives (UUID, name), else "".

A function without a row is NotSupported (3); functions of the whole library without a row succeed, but the count of GPUs. A
name that a fake does not have at all, or that `missing` names, is FunctionNotFound, as with an older driver.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Row = tuple[int, int, str, int, int, list[float], str]

SUCCESS, NOT_SUPPORTED, NOT_FOUND, INSUFFICIENT_SIZE = 0, 3, 6, 7

VALUES: Mapping[str, tuple[type, ...]] = {
    "nvmlDeviceGetMigMode": (ctypes.c_uint, ctypes.c_uint),  # current, pending
    "nvmlDeviceGetPowerUsage": (ctypes.c_uint,),  # mW
    "nvmlDeviceGetEnforcedPowerLimit": (ctypes.c_uint,),  # mW
    "nvmlDeviceGetPowerManagementLimit": (ctypes.c_uint,),  # mW
    "nvmlDeviceGetTotalEnergyConsumption": (ctypes.c_ulonglong,),  # mJ
    "nvmlDeviceGetCurrentClocksEventReasons": (ctypes.c_ulonglong,),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (ctypes.c_ulonglong,),
}
"""Functions that take a handle and one pointer for each value."""

WITH_ARGUMENT = ("nvmlDeviceGetClockInfo", "nvmlDeviceGetTemperature", "nvmlDeviceGetPcieThroughput")
"""Functions that take a handle, an argument and a pointer to one unsigned value: MHz, degrees, kB/s."""

STRUCTS: Mapping[str, tuple[str, ...]] = {
    "nvmlDeviceGetUtilizationRates": ("gpu", "memory"),  # percent
    "nvmlDeviceGetMemoryInfo": ("total", "free", "used"),
    "nvmlDeviceGetMemoryInfo_v2": ("total", "reserved", "free", "used"),
    "nvmlGpmQueryDeviceSupport": ("isSupportedDevice",),
}
"""Functions that take a handle and a struct, and the fields of it that a row holds."""


def read_rows(path: Path) -> list[Row]:
    """Rows of a recorded file."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [tuple(json.loads(line)) for line in text.splitlines() if line]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """A file that `read_rows` and the compiled fake read."""
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), encoding="utf-8")


def healthy_gpu(device: int = 0, tick: int = 0) -> list[Row]:
    """Rows of a GPU that offers everything, with numbers that are easy to tell apart."""
    functions: dict[tuple[str, int], list[float]] = {
        ("nvmlDeviceGetHandleByIndex_v2", 0): [],
        ("nvmlDeviceGetMigMode", 0): [0, 0],
        ("nvmlDeviceGetUtilizationRates", 0): [87, 42],
        ("nvmlDeviceGetMemoryInfo_v2", 0): [80_000, 500, 49_500, 30_000],
        ("nvmlDeviceGetMemoryInfo", 0): [80_000, 49_500, 30_500],
        ("nvmlDeviceGetFieldValues", 186): [412_500],  # NVML_FI_DEV_POWER_INSTANT
        ("nvmlDeviceGetPowerUsage", 0): [400_000],
        ("nvmlDeviceGetEnforcedPowerLimit", 0): [700_000],
        ("nvmlDeviceGetTotalEnergyConsumption", 0): [123_456_789],
        ("nvmlDeviceGetTemperatureV", 0): [61],
        ("nvmlDeviceGetTemperature", 0): [60],
        ("nvmlDeviceGetClockInfo", 1): [1980],  # NVML_CLOCK_SM
        ("nvmlDeviceGetClockInfo", 2): [2619],  # NVML_CLOCK_MEM
        ("nvmlDeviceGetCurrentClocksEventReasons", 0): [0x24],
        ("nvmlDeviceGetCurrentClocksThrottleReasons", 0): [0x04],
        ("nvmlDeviceGetComputeRunningProcesses_v3", 0): [0, 25_000, 1, 3_000],
        ("nvmlDeviceGetPcieThroughput", 0): [2_000],  # sent
        ("nvmlDeviceGetPcieThroughput", 1): [3_000],  # received
        ("nvmlGpmQueryDeviceSupport", 0): [1],
        ("nvmlGpmSampleGet", 0): [],
        ("nvmlGpmMetricsGet", 2): [50.0],  # SM, percent
        ("nvmlGpmMetricsGet", 5): [25.0],  # tensor cores
        ("nvmlGpmMetricsGet", 10): [75.0],  # memory
        ("nvmlGpmMetricsGet", 20): [1.0],  # PCIe sent, MiB/s
        ("nvmlGpmMetricsGet", 21): [2.0],  # received
        ("nvmlGpmMetricsGet", 60): [3.0],  # NVLink received
        ("nvmlGpmMetricsGet", 61): [4.0],  # sent
    }
    rows: list[Row] = [(tick, device, name, argument, SUCCESS, values, "") for (name, argument), values in functions.items()]
    rows.append((tick, device, "nvmlDeviceGetUUID", 0, SUCCESS, [], f"GPU-{device}000"))
    rows.append((tick, device, "nvmlDeviceGetName", 0, SUCCESS, [], "Fake H100"))
    return rows


def gpus(*groups: list[Row]) -> list[Row]:
    """Rows of a machine with one GPU for each group."""
    return [(0, -1, "nvmlDeviceGetCount_v2", 0, SUCCESS, [len(groups)], ""), *(row for group in groups for row in group)]


def failing(rows: list[Row], code: int, *functions: str, tick: int = 0) -> list[Row]:
    """The rows with these functions (all, if none is named) giving an error from a tick on."""
    again = [(tick, row[1], row[2], row[3], code, [], "") for row in rows if not functions or row[2] in functions]
    return [*(row for row in rows if tick or (functions and row[2] not in functions)), *again]


def giving(rows: list[Row], function: str, values: list[float], argument: int = 0, tick: int = 0) -> list[Row]:
    """The rows with other values of one function from a tick on."""
    changed = [(tick, row[1], function, argument, SUCCESS, values, "") for row in rows if row[2:4] == (function, argument)]
    return [*rows, *changed]


class CallbackLibrary:
    """Stands for the loaded library: pynvml's own binding, struct marshalling and errors work on real C functions.

    Attributes
    ----------
    tick
        The present one.
    calls
        How often each function was called.
    """

    def __init__(self, rows: Iterable[Row], missing: Iterable[str] = ()) -> None:
        import pynvml  # noqa: PLC0415 - nothing of it is needed to read a recorded file

        self.tick = 0
        self.calls: Counter[str] = Counter()
        self._pynvml = pynvml
        self._rows: dict[tuple[int, str, int], list[Row]] = {}
        for row in rows:
            self._rows.setdefault((row[1], row[2], row[3]), []).append(row)
        self._samples: dict[int, int] = {}  # GPM sample to the device that it was taken of
        self._functions = {name: function for name, function in self._make().items() if name not in missing}

    def __getattr__(self, name: str) -> Any:
        functions = self.__dict__.get("_functions", {})
        if name not in functions:
            raise AttributeError(name)  # as ctypes does for a symbol that the library lacks
        return functions[name]

    def answer(self, device: int, function: str, argument: int = 0, default: int = NOT_SUPPORTED) -> tuple[int, list[float], str]:
        """Return code, values and string at the present tick."""
        valid = [row for row in self._rows.get((device, function, argument), ()) if row[0] <= self.tick]
        if not valid:
            return default, [], ""
        return sorted(valid, key=lambda row: row[0])[-1][4:]

    def _make(self) -> dict[str, Any]:
        pointer, number = ctypes.c_void_p, ctypes.c_uint
        made: dict[str, Any] = {}

        def add(name: str, arguments: tuple[type, ...], call: Callable[..., int]) -> None:
            def counted(*given: Any) -> int:
                self.calls[name] += 1
                return call(*given)

            made[name] = ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(counted)

        def plain(name: str) -> int:
            return self.answer(-1, name, default=SUCCESS)[0]

        add("nvmlInitWithFlags", (number,), lambda _flags: plain("nvmlInitWithFlags"))
        add("nvmlShutdown", (), lambda: plain("nvmlShutdown"))
        add("nvmlDeviceGetCount_v2", (pointer,), self._count)
        add("nvmlDeviceGetHandleByIndex_v2", (number, pointer), self._handle)
        add("nvmlDeviceGetHandleByUUID", (ctypes.c_char_p, pointer), self._handle_by_uuid)
        add("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", (pointer, pointer), self._whole)
        for name in ("nvmlDeviceGetUUID", "nvmlDeviceGetName"):
            add(name, (pointer, pointer, number), self._texts(name))
        for name, kinds in VALUES.items():
            add(name, (pointer, *(pointer for _ in kinds)), self._values(name, kinds))
        for name in WITH_ARGUMENT:
            add(name, (pointer, number, pointer), self._value_of(name))
        for name, fields in STRUCTS.items():
            add(name, (pointer, pointer), self._struct(name, fields))
        add("nvmlDeviceGetTemperatureV", (pointer, pointer), self._temperature)
        add("nvmlDeviceGetFieldValues", (pointer, ctypes.c_int, pointer), self._fields)
        for name in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
            add(name, (pointer, pointer, pointer), self._processes(name))
        add("nvmlGpmSampleAlloc", (pointer,), self._new_sample)
        add("nvmlGpmSampleFree", (pointer,), lambda sample: SUCCESS if self._samples.pop(sample, None) is not None else NOT_FOUND)
        add("nvmlGpmSampleGet", (pointer, pointer), self._sample)
        add("nvmlGpmMetricsGet", (pointer,), self._monitored)
        return made

    def _count(self, out: int) -> int:
        code, values, _ = self.answer(-1, "nvmlDeviceGetCount_v2")
        ctypes.c_uint.from_address(out).value = int(values[0]) if values else 0
        return code

    def _handle(self, index: int, out: int) -> int:
        ctypes.c_void_p.from_address(out).value = index + 1
        return self.answer(index, "nvmlDeviceGetHandleByIndex_v2")[0]

    def _handle_by_uuid(self, uuid: bytes, out: int) -> int:
        for (device, function, _), rows in self._rows.items():
            if function == "nvmlDeviceGetUUID" and any(row[6] == uuid.decode() for row in rows):
                return self._handle(device, out)
        return NOT_FOUND

    def _whole(self, instance: int, out: int) -> int:
        code, values, _ = self.answer(instance - 1, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
        ctypes.c_void_p.from_address(out).value = int(values[0]) + 1 if values else None
        return code

    def _texts(self, name: str) -> Callable[..., int]:
        def call(handle: int, out: int, size: int) -> int:
            code, _, text = self.answer(handle - 1, name)
            ctypes.memmove(out, text.encode()[: size - 1] + b"\0", min(len(text.encode()), size - 1) + 1)
            return code

        return call

    def _values(self, name: str, kinds: tuple[type, ...]) -> Callable[..., int]:
        def call(handle: int, *outs: int) -> int:
            code, values, _ = self.answer(handle - 1, name)
            for out, kind, value in zip(outs, kinds, values, strict=False):
                kind.from_address(out).value = int(value)  # type: ignore[attr-defined]
            return code

        return call

    def _value_of(self, name: str) -> Callable[..., int]:
        def call(handle: int, argument: int, out: int) -> int:
            code, values, _ = self.answer(handle - 1, name, argument)
            ctypes.c_uint.from_address(out).value = int(values[0]) if values else 0
            return code

        return call

    def _struct(self, name: str, fields: tuple[str, ...]) -> Callable[..., int]:
        kind = {
            "nvmlDeviceGetUtilizationRates": self._pynvml.c_nvmlUtilization_t,
            "nvmlDeviceGetMemoryInfo": self._pynvml.c_nvmlMemory_t,
            "nvmlDeviceGetMemoryInfo_v2": self._pynvml.c_nvmlMemory_v2_t,
            "nvmlGpmQueryDeviceSupport": self._pynvml.c_nvmlGpmSupport_t,
        }[name]

        def call(handle: int, out: int) -> int:
            code, values, _ = self.answer(handle - 1, name)
            struct = kind.from_address(out)
            for field, value in zip(fields, values, strict=False):
                setattr(struct, field, int(value))
            return code

        return call

    def _temperature(self, handle: int, out: int) -> int:
        struct = self._pynvml.c_nvmlTemperature_v1_t.from_address(out)
        code, values, _ = self.answer(handle - 1, "nvmlDeviceGetTemperatureV", struct.sensorType)
        struct.temperature = int(values[0]) if values else 0
        return code

    def _fields(self, handle: int, count: int, out: int) -> int:
        for field in (self._pynvml.c_nvmlFieldValue_t * count).from_address(out):
            field.nvmlReturn, values, _ = self.answer(handle - 1, "nvmlDeviceGetFieldValues", field.fieldId)
            field.value.uiVal = int(values[0]) if values else 0
        return SUCCESS

    def _processes(self, name: str) -> Callable[..., int]:
        def call(handle: int, count_out: int, out: int | None) -> int:
            code, values, _ = self.answer(handle - 1, name)
            count = ctypes.c_uint.from_address(count_out)
            offered, count.value = count.value, len(values) // 2
            if code != SUCCESS or not values:
                return code
            if out is None or offered < count.value:
                return INSUFFICIENT_SIZE
            listed = (self._pynvml.c_nvmlProcessInfo_v2_t * count.value).from_address(out)
            for process, pid, held in zip(listed, values[::2], values[1::2], strict=True):
                process.pid, process.usedGpuMemory = int(pid) or os.getpid(), int(held) & (1 << 64) - 1
            return SUCCESS

        return call

    def _new_sample(self, out: int) -> int:
        sample = 0x1000 + 16 * self.calls["nvmlGpmSampleAlloc"]
        self._samples[sample] = -1
        ctypes.c_void_p.from_address(out).value = sample
        return SUCCESS

    def _sample(self, handle: int, sample: int) -> int:
        self._samples[sample] = handle - 1
        return self.answer(handle - 1, "nvmlGpmSampleGet")[0]

    def _monitored(self, out: int) -> int:
        asked = self._pynvml.c_nvmlGpmMetricsGet_t.from_address(out)
        taken = [self._samples[ctypes.cast(sample, ctypes.c_void_p).value or 0] for sample in (asked.sample1, asked.sample2)]
        if taken[0] != taken[1]:
            return NOT_FOUND
        for metric in asked.metrics[: asked.numMetrics]:
            metric.nvmlReturn, values, _ = self.answer(taken[1], "nvmlGpmMetricsGet", metric.metricId)
            metric.value = values[0] if values else 0.0
        return SUCCESS
