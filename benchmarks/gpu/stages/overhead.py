"""What recording costs: perfnb.record and torch.profiler on and off in turns, single calls, and whether a run reads back."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.units import Unit

SHARE: Final = 0.10
PACKAGES: Final = ("torch", "pandas", "msgspec", "isal", "tqdm", "psutil", "pynvml")

TARGETS_MS: Final = (5, 50)


def units(*, rehearse: bool) -> list[Unit]:
    """Recorder and profiler at each length of a step, the single calls, and a recorded run."""
    targets = TARGETS_MS[:1] if rehearse else TARGETS_MS
    made = [
        Unit("overhead", f"{what}_{target}ms", 1, 10.0, 40.0, {"what": what, "target_ms": target})
        for what in ("recorder", "profiler")
        for target in targets
    ]
    return [
        *made,
        Unit("overhead", "recorded_run", 1, 9.0, 40.0, {"what": "recorded_run"}),
        Unit("overhead", "calls", 1, 5.0, 30.0, {"what": "calls"}),
    ]


def run(unit: Unit, folder: Path, *, rehearse: bool) -> dict[str, Any]:
    """One of the measurements."""
    if unit.settings["what"] == "recorded_run":
        return _recorded(folder, rehearse=rehearse)
    if unit.settings["what"] == "calls":
        return _calls(rehearse=rehearse)
    return _switched(unit.settings["what"], unit.settings["target_ms"], rehearse=rehearse)


class Switched:
    """A training as a side of a comparison that switches something on, or off, when its turn comes."""

    def __init__(self, training: Any, switch: Callable[[], None]) -> None:
        self._training, self._switch = training, switch

    def activate(self) -> None:
        """Begin a turn."""
        self._training.activate()
        self._switch()

    def step(self) -> None:
        """One step."""
        self._training.step()


def _training(target_ms: float, *, rehearse: bool) -> Any:
    """A transformer whose step takes about so long, by its batch size."""
    import time  # noqa: PLC0415 - beside what needs it

    from benchmarks.gpu.training import Training, synchronize  # noqa: PLC0415 - imports torch
    from benchmarks.gpu.workloads import config_of  # noqa: PLC0415 - as above

    if rehearse:
        return Training(config_of("gpt", "rehearse"))

    def step_ms(training: Any) -> float:
        for _ in range(5):
            training.step()
        synchronize()
        start = time.perf_counter()
        for _ in range(5):
            training.step()
        synchronize()
        return (time.perf_counter() - start) * 200

    small, large = (Training(config_of("gpt", "measure", batch_size=batch)) for batch in (2, 8))
    low, high = step_ms(small), step_ms(large)
    each = max((high - low) / 6, 1e-3)
    batch = max(1, min(256, round(2 + (target_ms - low) / each)))
    return Training(config_of("gpt", "measure", batch_size=batch))


def _switched(what: str, target_ms: float, *, rehearse: bool) -> dict[str, Any]:
    import torch  # noqa: PLC0415 - only in the unit's process
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415 - as above

    import perfnb  # noqa: PLC0415 - as above
    from benchmarks.gpu.timing import interleaved  # noqa: PLC0415 - as above
    from benchmarks.gpu.training import described  # noqa: PLC0415 - as above

    training = _training(target_ms, rehearse=rehearse)
    scratch = Path(tempfile.mkdtemp(prefix="perfnb-"))
    running = contextlib.ExitStack()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]

    def off() -> None:
        running.close()

    def on() -> None:
        running.close()
        if what == "recorder":
            running.enter_context(perfnb.record(scratch / "run", overwrite=True, config=training.config))
        else:
            running.enter_context(profile(activities=activities, record_shapes=True))

    sides = {"off": Switched(training, off), "on": Switched(training, on)}
    training.step()
    try:
        times = interleaved(sides, steps=4 if rehearse else 30, turns=2 if rehearse else 8, seconds=0.5 if rehearse else 6.0)
    finally:
        off()
        shutil.rmtree(scratch, ignore_errors=True)
    clock = "median_device_us" if times["off"]["median_device_us"] else "median_wall_us"
    added = times["on"][clock] / times["off"][clock] - 1.0
    return {
        "said": f"{times['off'][clock] / 1e3:.2f} ms without, {added:+.2%} with the {what}",
        "what": what,
        "target_ms": target_ms,
        "added_share": added,
        "config": training.config,
        "times": times,
        "environment": described(),
    }


def _recorded(folder: Path, *, rehearse: bool) -> dict[str, Any]:
    from benchmarks.gpu.recorded_run import record_run  # noqa: PLC0415 - imports torch and pandas
    from benchmarks.gpu.training import described  # noqa: PLC0415 - as above

    training = _training(5, rehearse=rehearse)
    told = record_run(training, folder / "recorded_run", steps=25 if rehearse else 400, trace=3)
    filled = ", ".join(f"{name} {count}" for name, count in told["filled"].items() if name.endswith(("device_us", "power_w")))
    counts = ", ".join(f"{told['rows'][table]} {table.replace('_', ' ')}" for table in ("steps", "device_ops", "allocator"))
    said = f"{counts}; {filled}"
    return {"said": said, **told, "environment": described()}


def _calls(*, rehearse: bool) -> dict[str, Any]:
    import torch  # noqa: PLC0415 - only in the unit's process

    from benchmarks.gpu.timing import cost_us  # noqa: PLC0415 - as above
    from benchmarks.gpu.training import described  # noqa: PLC0415 - as above
    from benchmarks.gpu.units import NeedsCudaError  # noqa: PLC0415 - as above
    from perfnb.record.device_events import DeviceEvents  # noqa: PLC0415 - as above
    from perfnb.record.gpu import GpuCollector  # noqa: PLC0415 - as above

    calls = 5 if rehearse else 200
    moments = iter(range(0, 10**15, 10**9))
    collector = GpuCollector()
    costs = {"gpu_collector": cost_us(lambda: collector.collect(next(moments)), calls=calls)}
    collector.close()
    told = {"costs": costs, "environment": described()}
    if not torch.cuda.is_available():
        message = "memory_stats, events"
        raise NeedsCudaError(message, told)
    training = _training(5, rehearse=rehearse)
    for _ in range(5):
        training.step()
    events = DeviceEvents()
    costs |= {
        "memory_stats": cost_us(lambda: torch.cuda.memory_stats_as_nested_dict(0), calls=calls),
        "event_at_boundary": cost_us(events.take, calls=calls),
        "mem_get_info": cost_us(torch.cuda.mem_get_info, calls=calls),
    }
    return {"said": ", ".join(f"{name} {cost['median_us']:.1f} us" for name, cost in costs.items()), **told}
