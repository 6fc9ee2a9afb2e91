"""Everything that perfnb asks the driver, through idle, load and idle: values or error codes, latencies, update periods."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.gpu.units import NeedsCudaError, Unit

SHARE: Final = 0.05
PACKAGES: Final = ("torch", "pynvml")

PARTS: Final = ("idle", "load", "idle again")
PART_S: Final = 4.0
POLL_S: Final = 0.05
DENSE_S: Final = 1.0
"""How long each getter alone is asked without a pause, under load, to see how often its value changes."""

DENSE: Final = (
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetClockInfo",
)


def units(*, rehearse: bool) -> list[Unit]:
    """One process: the series is one."""
    expected_s, limit_s = (2.0, 30.0) if rehearse else (25.0, 60.0)
    return [Unit("nvml_fixtures", "idle_load_idle", 1, expected_s, limit_s)]


def run(unit: Unit, folder: Path, *, rehearse: bool) -> dict[str, Any]:
    """The fixture as a file, and a summary of each getter."""
    import pynvml  # noqa: PLC0415 - only in the unit's process

    from benchmarks.gpu.nvml_getters import Recorder  # noqa: PLC0415 - as above
    from benchmarks.gpu.training import described  # noqa: PLC0415 - as above

    with _library(pynvml, rehearse=rehearse) as library:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        recorder = Recorder(pynvml, handle)
        ticks = _series(recorder, library, part_s=0.3 if rehearse else PART_S, poll_s=0.02 if rehearse else POLL_S)
        dense = _dense(recorder, pynvml, handle, 0.02 if rehearse else DENSE_S)
        recorder.close()
        driver = _driver(pynvml)
        pynvml.nvmlShutdown()
    path = folder / "nvml.jsonl.gz"
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in sorted(recorder.rows, key=lambda row: row[0]))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    told = {
        "unit": unit.name,
        "file": path.name,
        "library": "callbacks" if library is not None else "driver",
        "driver": driver,
        "ticks": ticks,
        "poll_s": POLL_S,
        "rows": len(recorder.rows),
        "latency": {name: _summary(times) for name, times in sorted(recorder.latency_us.items())},
        "update_period": dense,
        "errors": _errors(recorder.rows),
        "environment": described(),
    }
    said = f"{len(recorder.rows)} rows of {len(recorder.latency_us)} getters, {len(told['errors'])} of them refused"
    if library is not None:
        message = f"the driver; asked callbacks instead: {said}"
        raise NeedsCudaError(message, told)
    return {"said": said, **told}


def _series(recorder: Any, library: Any, *, part_s: float, poll_s: float) -> dict[str, list[int]]:
    """Poll through all parts; part to its first and last tick."""
    ticks: dict[str, list[int]] = {}
    tick = 0
    for part in PARTS:
        first, until = tick, time.perf_counter() + part_s
        with _load(active=part == "load") as keep_busy:
            while time.perf_counter() < until or tick - first < 3:  # noqa: PLR2004 - a part has some ticks at least
                due = time.perf_counter() + poll_s
                keep_busy()
                if library is not None:
                    library.tick = tick
                recorder.poll(tick)
                tick += 1
                time.sleep(max(due - time.perf_counter(), 0.0))
        ticks[part] = [first, tick - 1]
    return ticks


@contextmanager
def _load(*, active: bool) -> Iterator[Any]:
    """A burst of matrix products that is kept going by calls."""
    import torch  # noqa: PLC0415 - only in the unit's process

    if not active or not torch.cuda.is_available():
        yield lambda: None
        return
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    waiting: list[Any] = []

    def keep_busy() -> None:
        waiting[:] = [event for event in waiting if not event.query()]
        while len(waiting) < 4:  # some 60 ms of work ahead of the poll  # noqa: PLR2004 - as said
            for _ in range(10):
                torch.mm(left, right)
            event = torch.cuda.Event()
            event.record()
            waiting.append(event)

    yield keep_busy
    torch.cuda.synchronize()


def _dense(recorder: Any, nvml: Any, handle: Any, seconds: float) -> dict[str, dict[str, Any]]:
    """How often the value of each getter changes under load, asked without a pause."""
    found: dict[str, dict[str, Any]] = {}
    for getter in recorder.asked:
        if getter.function not in DENSE:
            continue
        changes: list[float] = []
        calls, last = 0, None
        with _load(active=True) as keep_busy:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                keep_busy()
                try:
                    value = list(getter.ask(handle)[0])
                except nvml.NVMLError:
                    break
                calls += 1
                if last is not None and value != last:
                    changes.append(time.perf_counter())
                last = value
        gaps = [(after - before) * 1e3 for before, after in itertools.pairwise(changes)]
        found[f"{getter.function}({getter.argument})"] = {
            "calls": calls,
            "changes": len(changes),
            "median_ms": round(median(gaps), 2) if gaps else None,
        }
    return found


@contextmanager
def _library(nvml: Any, *, rehearse: bool) -> Iterator[Any]:
    """Nothing where there is a driver, or a measurement; else callbacks in its place, so that a rehearsal polls something."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        if not rehearse:
            raise
    else:
        nvml.nvmlShutdown()
        yield None
        return
    import importlib.util  # noqa: PLC0415 - only in a rehearsal

    path = Path(__file__).resolve().parents[3] / "tests" / "record" / "nvml_callbacks.py"
    specification = importlib.util.spec_from_file_location("nvml_callbacks", path)
    assert specification is not None  # noqa: S101 - the file is part of the repository
    assert specification.loader is not None  # noqa: S101 - as above
    callbacks = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(callbacks)
    rising = [(tick, 0, "nvmlDeviceGetPowerUsage", 0, 0, [400_000 + 1000 * tick], "") for tick in range(1, 60)]
    library = callbacks.CallbackLibrary([*callbacks.gpus(callbacks.healthy_gpu()), *rising])
    nvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 - a name of the driver is looked up once
    nvml.nvmlLib = library
    yield library


def _driver(nvml: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"nvml_binding": getattr(nvml, "__version__", None)}
    for name, function in (("driver", "nvmlSystemGetDriverVersion"), ("nvml", "nvmlSystemGetNVMLVersion")):
        try:
            told[name] = str(getattr(nvml, function)())
        except nvml.NVMLError as error:
            told[name] = str(error)
    return told


def _summary(times: list[float]) -> dict[str, Any]:
    ordered = sorted(times)
    places = {"median_us": 0.5, "p90_us": 0.9, "largest_us": 1.0}
    picked = {name: round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 1) for name, share in places.items()}
    return {**picked, "calls": len(ordered)}


def _errors(rows: list[Any]) -> dict[str, list[int]]:
    """Getter to the error codes that it gave."""
    found: dict[str, set[int]] = {}
    for _, _, function, argument, code, _, _ in rows:
        if code:
            found.setdefault(f"{function}({argument})", set()).add(code)
    return {name: sorted(codes) for name, codes in sorted(found.items())}
