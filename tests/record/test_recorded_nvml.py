"""What a driver told during the GPU campaign, replayed: callbacks and the compiled library give one table, that of the rows."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.gpu.nvml_getters import Recorder
from perfnb.record.gpu import GpuCollector
from perfnb.record.rows import COLUMNS

pynvml = pytest.importorskip("pynvml")

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "data" / "samples"
FIXTURES = sorted(SAMPLES.glob("gpu_*/nvml_fixtures/nvml.jsonl.gz"))
COMPILER = shutil.which("cc") or shutil.which("gcc")
MOST_TICKS = 12
MEBIBYTE = 1 << 20

POLLING = """
import ctypes, json, sys
import pynvml
from perfnb.record.gpu import GpuCollector
library = ctypes.CDLL("libnvidia-ml.so.1")
collector = GpuCollector()
rows = []
for second, tick in enumerate(json.loads(sys.argv[1])):
    library.fakeNvmlSetTick(tick)
    rows += [list(row) for row in collector.collect(second * 10**9).get("gpu_samples", [])]
print(json.dumps(rows))
"""


def _callbacks() -> ModuleType:
    specification = importlib.util.spec_from_file_location("nvml_callbacks", HERE / "nvml_callbacks.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


nvml = _callbacks()


@pytest.fixture
def _driver_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    kept = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount
    yield
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml._nvmlGetFunctionPointer_cache.update(kept[1])
    pynvml.nvmlLib, pynvml._nvmlLib_refcount = kept[0], kept[2]


def installed(rows: Sequence[Any]) -> Any:
    """A library of callbacks in the place of the driver's."""
    library = nvml.CallbackLibrary(rows)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml.nvmlLib = library
    return library


def recorded(path: Path) -> Path:
    """A fixture as the campaign records it, of a driver that is made of callbacks and whose power rises."""
    rising = [(tick, 0, "nvmlDeviceGetPowerUsage", 0, 0, [400_000 + tick], "") for tick in range(1, 9)]
    refused = nvml.failing(nvml.healthy_gpu(), 3, "nvmlDeviceGetFieldValues", "nvmlDeviceGetTemperatureV")
    library = installed([*nvml.gpus(refused), *rising])
    pynvml.nvmlInit()
    recorder = Recorder(pynvml, pynvml.nvmlDeviceGetHandleByIndex(0))
    for tick in range(9):
        library.tick = tick
        recorder.poll(tick)
    recorder.close()
    pynvml.nvmlShutdown()
    text = "".join(json.dumps(row) + "\n" for row in recorder.rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def ticks_of(rows: Sequence[Any]) -> list[int]:
    """Some of the fixture's ticks, its first and its last among them."""
    last = max(row[0] for row in rows)
    return sorted({round(last * number / (MOST_TICKS - 1)) for number in range(MOST_TICKS)})


def by_callbacks(rows: Sequence[Any], ticks: Sequence[int]) -> list[list[Any]]:
    """Rows of gpu_samples by pynvml's own binding on callbacks."""
    library = installed(rows)
    collector = GpuCollector()
    found: list[list[Any]] = []
    for second, tick in enumerate(ticks):
        library.tick = tick
        found += [list(row) for row in collector.collect(second * 10**9).get("gpu_samples", [])]
    collector.close()
    return found


def by_library(rows: Sequence[Any], ticks: Sequence[int], folder: Path) -> list[list[Any]]:
    """The same by a library that the system loads in another process."""
    name = "libnvidia-ml.so.1"
    command = [
        str(COMPILER),
        "-O2",
        "-shared",
        "-fPIC",
        f"-Wl,-soname,{name}",
        "-o",
        str(folder / name),
        str(HERE / "fake_nvml.c"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    nvml.write_rows(folder / "rows.jsonl", rows)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
    environment |= {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML_ROWS": str(folder / "rows.jsonl")}
    done = subprocess.run(
        [sys.executable, "-c", POLLING, json.dumps(list(ticks))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found


def by_hand(rows: Sequence[Any], ticks: Sequence[int]) -> list[dict[str, Any]]:
    """What the rows say at these ticks in the columns of gpu_samples, worked out without the collector."""

    def told(tick: int, function: str, argument: int = 0) -> list[float] | None:
        own = [row for row in rows if row[1:4] == (0, function, argument) and row[0] <= tick]
        latest = max(own, key=lambda row: row[0], default=None)
        return None if latest is None or latest[4] else latest[5]

    def first(tick: int, scale: float, *ways: tuple[str, int], place: int = 0) -> float | None:
        answers = (told(tick, *way) for way in ways)
        return next((answer[place] * scale for answer in answers if answer), None)

    table = []
    for number, tick in enumerate(ticks):
        memory, temperature = ("nvmlDeviceGetMemoryInfo_v2", 0), ("nvmlDeviceGetTemperatureV", 0)
        row = {
            "utilization_share": first(tick, 0.01, ("nvmlDeviceGetUtilizationRates", 0)),
            "memory_utilization_share": first(tick, 0.01, ("nvmlDeviceGetUtilizationRates", 0), place=1),
            "memory_used_bytes": first(tick, 1, memory, place=3),
            "memory_total_bytes": first(tick, 1, memory),
            "power_w": first(tick, 1e-3, ("nvmlDeviceGetFieldValues", 186), ("nvmlDeviceGetPowerUsage", 0)),
            "energy_j": first(tick, 1e-3, ("nvmlDeviceGetTotalEnergyConsumption", 0)),
            "temperature_c": first(tick, 1, temperature, ("nvmlDeviceGetTemperature", 0)),
            "sm_clock_mhz": first(tick, 1, ("nvmlDeviceGetClockInfo", 1)),
            "memory_clock_mhz": first(tick, 1, ("nvmlDeviceGetClockInfo", 2)),
        }
        if number:  # the first sample has none before it
            row |= {
                "sm_active_share": first(tick, 0.01, ("nvmlGpmMetricsGet", 2)),
                "dram_active_share": first(tick, 0.01, ("nvmlGpmMetricsGet", 10)),
                "pcie_send_bytes_per_s": first(tick, MEBIBYTE, ("nvmlGpmMetricsGet", 20)),
            }
        table.append(row)
    return table


def problems(path: Path, folder: Path) -> list[str]:
    """Where callbacks, the compiled library and the rows themselves disagree."""
    rows = [tuple(row) for row in nvml.read_rows(path)]
    ticks = ticks_of(rows)
    found = by_callbacks(rows, ticks)
    wrong = [] if len(found) == len(ticks) else [f"{len(found)} rows at {len(ticks)} ticks"]
    if found != by_library(rows, ticks, folder):
        wrong.append("the compiled library gives another table than the callbacks")
    named = [dict(zip(COLUMNS["gpu_samples"], row, strict=True)) for row in found]
    for tick, row, expected in zip(ticks, named, by_hand(rows, ticks), strict=False):
        wrong += [
            f"tick {tick}: {column} is {row[column]}, its row says {value}"
            for column, value in expected.items()
            if (row[column] is None) != (value is None)
            or (value is not None and abs(row[column] - value) > 1e-9 * abs(value) + 1e-9)
        ]
    return wrong


needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="no C compiler (cc) to build the library that stands for the driver's"
)


@needs_compiler
@pytest.mark.usefixtures("_driver_kept")
@pytest.mark.skipif(not FIXTURES, reason="no GPU campaign recorded yet")
@pytest.mark.parametrize("path", FIXTURES, ids=[path.parents[1].name for path in FIXTURES])
def test_a_recorded_driver_gives_one_table_by_both_ways(path: Path, tmp_path: Path) -> None:
    assert problems(path, tmp_path) == []


@needs_compiler
@pytest.mark.usefixtures("_driver_kept")
def test_a_fixture_of_the_campaigns_recorder_gives_one_table_by_both_ways(tmp_path: Path) -> None:
    path = recorded(tmp_path / "nvml.jsonl.gz")

    rows = nvml.read_rows(path)

    assert problems(path, tmp_path) == []
    assert {row[4] for row in rows if row[2] == "nvmlDeviceGetTemperatureV"} == {3}
    assert [row[5] for row in rows if row[2] == "nvmlDeviceGetPowerUsage"][-1] == [400_008]
    assert sum(row[2] == "nvmlDeviceGetEnforcedPowerLimit" for row in rows) == 1


@needs_compiler
@pytest.mark.usefixtures("_driver_kept")
def test_the_comparison_fails_where_the_collector_reads_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(tmp_path / "nvml.jsonl.gz")
    right = GpuCollector._row

    def ten_times_the_power(self: GpuCollector, *given: Any) -> Any:
        row = right(self, *given)
        at = COLUMNS["gpu_samples"].index("power_w")
        return row and (*row[:at], row[at] * 10, *row[at + 1 :])

    monkeypatch.setattr(GpuCollector, "_row", ten_times_the_power)
    wrong = problems(path, tmp_path)

    assert wrong[0] == "the compiled library gives another table than the callbacks"
    assert "power_w is 4000.0, its row says 400.0" in wrong[1]
