"""The GPU collector on a compiled library that stands for the driver's, loaded by its name as on a machine with a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("pynvml")

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc) to build the library that stands for the driver's"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the library is loaded by its Linux name"),
]

PRELUDE = """
import ctypes, json, os, threading
import pynvml
from perfnb.record.gpu import GpuCollector
from perfnb.record.rows import COLUMNS
library = ctypes.CDLL("libnvidia-ml.so.1")
library.fakeNvmlCalls.restype = ctypes.c_longlong
def poll(collector, second):
    rows = collector.collect(second * 10**9).get("gpu_samples", [])
    return [dict(zip(COLUMNS["gpu_samples"], row, strict=True)) for row in rows]
"""


def _callbacks() -> ModuleType:
    specification = importlib.util.spec_from_file_location("nvml_callbacks", HERE / "nvml_callbacks.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


nvml = _callbacks()
Run = Callable[[list[Any], str], Any]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the compiled library."""
    folder = tmp_path_factory.mktemp("library")
    name = "libnvidia-ml.so.1"
    command = [COMPILER, "-O2", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(HERE / "fake_nvml.c")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture
def run(library: Path, tmp_path: Path) -> Run:
    """Run code in a process whose driver answers from rows; what it prints last is JSON."""

    def start(rows: list[Any], code: str) -> Any:
        nvml.write_rows(tmp_path / "rows.jsonl", rows)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment |= {"LD_LIBRARY_PATH": str(library), "FAKE_NVML_ROWS": str(tmp_path / "rows.jsonl")}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PRELUDE + code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return start


def test_the_library_that_the_system_loads_gives_the_rows_that_the_callbacks_give(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # trainers of other tests hide GPUs from this process
    import pynvml  # noqa: PLC0415 - skipped above where there is none

    from perfnb.record.gpu import GpuCollector  # noqa: PLC0415 - as above

    rows = nvml.gpus(nvml.healthy_gpu(0), nvml.giving(nvml.healthy_gpu(1), "nvmlDeviceGetComputeRunningProcesses_v3", [0, -1]))
    kept = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml.nvmlLib = nvml.CallbackLibrary(rows)
    try:
        collector = GpuCollector()
        expected = [[list(row) for row in collector.collect(second * 10**9)["gpu_samples"]] for second in range(2)]
        gaps = [list(gap) for gap in collector.gaps.changed()]
        collector.close()
    finally:
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml.nvmlLib, pynvml._nvmlLib_refcount = kept[0], kept[2]

    found = run(
        rows,
        """
collector = GpuCollector()
rows = [collector.collect(second * 10**9)["gpu_samples"] for second in range(2)]
print(json.dumps([rows, collector.gaps.changed()]))
""",
    )

    assert found == [expected, gaps]
    assert expected[1][0][3] == 0.87


def test_a_lost_gpu_comes_back_and_the_other_goes_on(run: Run) -> None:
    lost = nvml.failing(nvml.healthy_gpu(0), 15, tick=1) + nvml.healthy_gpu(0, tick=2)

    found = run(
        nvml.gpus(lost, nvml.healthy_gpu(1)),
        """
collector = GpuCollector()
seen = []
for tick, second in ((0, 0), (1, 1), (2, 2), (2, 62)):
    library.fakeNvmlSetTick(tick)
    seen.append([row["gpu"] for row in poll(collector, second)])
print(json.dumps([seen, [gap[:4] for gap in collector.gaps.changed()]]))
""",
    )

    assert found == [[[0, 1], [1], [1], [0, 1]], [["gpu_samples", None, 0, "GPU is lost"]]]


def test_four_threads_ask_a_hundred_thousand_times_each_without_an_error(run: Run) -> None:
    found = run(
        nvml.gpus(nvml.healthy_gpu()),
        """
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
before = library.fakeNvmlCalls()
wrong = []
def ask():
    try:
        for _ in range(100_000):
            if pynvml.nvmlDeviceGetPowerUsage(handle) != 400_000:
                wrong.append("value")
    except Exception as error:
        wrong.append(repr(error))
threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads: thread.start()
collector = GpuCollector()
rows = [len(poll(collector, second)) for second in range(50)]
for thread in threads: thread.join()
print(json.dumps([wrong, rows == [1] * 50, library.fakeNvmlCalls() - before >= 400_000]))
""",
    )

    assert found == [[], True, True]


def test_a_forked_child_reaches_no_function_of_the_driver(run: Run) -> None:
    found = run(
        nvml.gpus(nvml.healthy_gpu()),
        """
collector = GpuCollector()
first = poll(collector, 0)
before = library.fakeNvmlCalls()
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    own = GpuCollector()
    rows = poll(collector, 1) + poll(own, 1)
    collector.abandon(); collector.close(); own.close()
    os.write(writing, json.dumps([rows, library.fakeNvmlCalls() - before, [gap[3] for gap in own.gaps.changed()]]).encode())
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps([json.loads(os.read(reading, 1000)), len(poll(collector, 1))]))
""",
    )

    assert found == [[[], 0, ["NVML was opened before this process was forked, and may not be used in it"]], 1]
