"""What a recording does off the hot path: takes the marks, makes rows of them, samples host and GPUs, writes."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Protocol

from perfnb.record.allocator import AllocatorCollector
from perfnb.record.cgroup import cpu_capacity
from perfnb.record.device_events import DeviceEvents
from perfnb.record.gaps import Gaps
from perfnb.record.gpu import GpuCollector
from perfnb.record.hooks import Watch
from perfnb.record.host import HostCollector
from perfnb.record.json_rows import json_value
from perfnb.record.late_values import LateValues
from perfnb.record.marks import QUIET_NS, Code, Mark, Marks
from perfnb.record.nvidia import NoDevices, devices
from perfnb.record.pauses import Pauses
from perfnb.record.phases import PhaseFold
from perfnb.record.sampler import Sampler
from perfnb.record.seen_config import seen_of_torch
from perfnb.record.sink import Sink

LARGEST_MODULE_SHARE: Final = 0.02
"""Share of a step above which the hooks of modules go (shared/design, notebook 7)."""

COPY_EVERY_STEPS: Final = 50
LOOK_EVERY_STEPS: Final = 20
_CALIBRATIONS: Final = 100


class Window(Protocol):
    """A profiler that runs for some steps, see `perfnb.record.profiler_window`."""

    def at_edge(self) -> None:
        """A step ended."""
        ...

    def close(self) -> None:
        """The recording ends."""
        ...


class Background:
    """Everything of a recording that does not run inside a hook.

    Attributes
    ----------
    devices
        Names and memory of the GPUs, for the header.
    cpu_capacity
        Cores that the job may use.
    edges
        Steps that ended.
    """

    def __init__(
        self, marks: Marks, watch: Watch, *, gpu_interval_s: float, host_interval_s: float, reset_peaks: bool = False
    ) -> None:
        self._marks, self._watch = marks, watch
        self._host = HostCollector(threading.get_native_id(), interval_s=host_interval_s)
        self._gpu = GpuCollector(interval_s=gpu_interval_s)
        self.devices = _devices()
        self.cpu_capacity = cpu_capacity()
        self._fold, self._values, self._events = PhaseFold(), LateValues(), DeviceEvents()
        self._pauses = Pauses()
        self._allocator: AllocatorCollector | None = None
        self._window: Window | None = None
        self._sink: Sink | None = None
        self._sampler: Sampler | None = None
        self._lock = threading.Lock()
        self._boundaries, self._boundary_ns, self._resets_peaks = 0, 0.0, reset_peaks
        self._seen: dict[str, Any] = {}
        self._told: set[str] = set()
        self._unseen: set[str] = set()
        self._gaps = Gaps()
        # done at the edges of steps: every how many, what, and the table and column that lack it where it fails
        self._parts: list[tuple[int, Callable[[int], None], str, str | None]] = [
            (1, self._follow_modules, "phases", "forward"),
            (1, self._pauses.follow_compiler, "compile", None),
            (LOOK_EVERY_STEPS, self._look, "config", None),
            (COPY_EVERY_STEPS, self._copy_values, "training", None),
        ]
        self.edges = 0
        self._drop_modules = False

    def start(self, sink: Sink, notes: Iterable[str], trace: int, trace_folder: Path | None) -> None:
        """Begin to sample and to write, a trace of so many steps into its folder; called on the training thread."""
        self._sink = sink
        self._boundary_ns = boundary_cost_ns()
        for note in notes:
            self._note(note)
        if trace and trace_folder is not None and "torch" in sys.modules:
            from perfnb.record.profiler_window import ProfilerWindow  # noqa: PLC0415 - only for those who ask for it

            self._window = ProfilerWindow(trace, trace_folder, sink, self._marks, self._note)
        self._pauses.listen()
        self._sampler = Sampler(sink, [self._host, self._gpu], [self.drain], gaps=self._gaps)
        self._sampler.start()

    def at_edge(self) -> None:
        """A step ended: what has to be done on the training thread."""
        edge, self.edges = self.edges, self.edges + 1
        for part in self._parts:
            if edge % part[0] == 0:
                try:
                    part[1](edge)
                except Exception as error:  # noqa: BLE001 - the training goes on, whatever fails here; that part ends
                    self._parts = [each for each in self._parts if each is not part]
                    self._gap(part[2], part[3], f"failed: {type(error).__name__}: {error}")
        if self._window is not None:
            self._window.at_edge()

    def _follow_modules(self, edge: int) -> None:
        if self._drop_modules:
            self._watch.modules.remove()
        else:
            self._watch.modules.at_edge(edge)

    def _ask_allocator(self, _edge: int) -> None:
        assert self._allocator is not None  # noqa: S101 - `_look` added this part with it
        for row in self._allocator.rows():
            self._marks.note(Code.ROW, ("allocator", row))

    def _copy_values(self, _edge: int) -> None:
        if self._values.has_waiting:
            self._values.start_copy()

    def drain(self) -> None:
        """Make rows of what the hooks left, and write them; from any thread."""
        with self._lock:
            self._drain(wait=False)

    def stop(self) -> None:
        """Write what is left and end; called on the training thread once no more marks come."""
        try:
            if self._window is not None:
                self._window.close()
            with self._lock:
                self._take_rest()
        finally:  # also where the last copy was interrupted, or failed: nothing may be left at work
            self._close()
        self._write_cost()

    def _take_rest(self) -> None:
        try:
            if self._values.has_waiting:
                self._values.start_copy()
            self._values.wait()
        except Exception as error:  # noqa: BLE001 - as in `at_edge`
            self._gap("training", None, f"failed: {type(error).__name__}: {error}")
        self._drain(wait=True)
        self._write("values", self._values.rest())
        self._note_gaps()

    def _close(self) -> None:
        """Nothing listens or samples any more; also of one that never started."""
        self._pauses.close()
        if self._sampler is not None:
            self._sampler.stop()  # writes the gaps

    def _drain(self, *, wait: bool) -> None:
        marks = self._marks.taken()
        began = self._fold.step
        folded = self._fold.fold(marks)
        for table, rows in folded.rows.items():
            if table != "phases":
                self._write(table, rows)
        self._write("phases", self._events.rows(folded.rows.get("phases", []), wait=wait))
        self._write("values", self._values.rows(folded.values))
        self._write("host_ops", self._pauses.rows())
        self._write_seen()
        self._host.set_workers(self._watch.worker_pids)
        if marks:
            self._judge_cost(marks, folded.rows.get("steps", []), began)
            self._write_cost()

    def _write(self, table: str, rows: Iterable[Any]) -> None:
        rows = list(rows)
        if rows and self._sink is not None:
            self._sink.append(table, rows)

    def _write_seen(self) -> None:
        """Settings that are new or changed since they were written."""
        seen = dict(self._watch.seen)
        new = {knob: value for knob, value in seen.items() if self._seen.get(knob, self) != value}
        self._write("config", [(time.perf_counter_ns(), knob, json_value(value)) for knob, value in new.items()])
        self._seen |= new
        for reason in self._watch.exchange.unseen - self._unseen:
            self._unseen.add(reason)
            self._gap("phases", "communication", reason)
        others = self._watch.optimizers[1:]
        if others:
            self._note(
                f"several optimizers stepped ({', '.join(self._watch.optimizers)}): a step ends with the first one's, "
                f"{self._watch.optimizers[0]}"
            )

        if self._watch.is_marked_elsewhere:
            self._note(
                "phases and steps that another thread marked are left out: its clocks are not those of the training thread"
            )

    def _note(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._write("notes", [(time.perf_counter_ns(), sentence)])

    def _look(self, _edge: int) -> None:
        """What the training uses by now, as only its own thread can see it."""
        torch = sys.modules.get("torch")
        if torch is None:
            return
        self._watch.seen.update(seen_of_torch(torch))
        if self._allocator is None and torch.cuda.is_initialized():
            self._allocator = AllocatorCollector(reset_peaks=self._resets_peaks)
            self._parts = [*self._parts, (1, self._ask_allocator, "allocator", None)]
            self._watch.seen["device"] = "cuda"
            self._marks.with_events(self._events.take)
            uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)  # older torch has none
            if uuid is not None:
                self._gpu.set_uuids([str(uuid)])

    def _judge_cost(self, marks: list[Mark], steps: list[Any], began: int) -> None:
        """Add up what the hooks cost, and let those of modules go where they cost too much of a short step."""
        boundaries = sum(mark[0] <= Code.END for mark in marks)
        self._boundaries += boundaries
        forwards = sum(mark[1] == "forward" for mark in marks)
        if not steps or self._drop_modules or began < 2 * LOOK_EVERY_STEPS:
            return
        share = forwards * self._boundary_ns / (steps[-1][2] - steps[0][1])
        if share > LARGEST_MODULE_SHARE:
            self._drop_modules = True
            self._gap("phases", "forward", f"hooks of modules would cost {share:.1%} of these short steps")

    def _write_cost(self) -> None:
        hook_ns = round(self._boundary_ns * (self._boundaries + self._watch.modules.calls / 2)) + self._watch.exchange.spent_ns
        sampler_ns = self._sampler.cpu_ns if self._sampler is not None else 0
        self._write("costs", [(time.perf_counter_ns(), hook_ns, self._fold.step, sampler_ns)])

    def _gap(self, table: str, column: str | None, reason: str, count: int = 1) -> None:
        self._gaps.note(table, column, None, reason, time.perf_counter_ns(), count)

    def _note_gaps(self) -> None:
        for (name, reason), count in self._values.lost.items():
            self._gap("training", name, reason, count)
        if self._fold.unclear_loss:
            self._gap("training", "loss", self._fold.unclear_loss)
            self._gap("training", "micro_batches", self._fold.unclear_loss)
        if self._fold.forwards and not self._fold.step:
            self._note(f"no optimizer step ended ({self._fold.forwards} forward passes were seen)")


def _devices() -> dict[str, Any]:
    """Names and memory of the GPUs of this machine, as a header holds them."""
    found = devices()
    known = () if isinstance(found, NoDevices) else found
    return {
        "devices": [device.name for device in known],
        "device_memory_bytes": [device.memory_bytes for device in known],
    }


def boundary_cost_ns() -> float:
    """What one boundary costs on this machine now: the hook, the clocks and the mark, as measured over some hundred."""
    marks = Marks()
    watch = Watch(marks, lambda: None)
    watch.is_compiling = _torch_or_nothing("compiler.is_compiling")
    watch.is_grad_enabled = lambda: True
    before, after = watch.modules._before, watch.modules._after  # noqa: SLF001 - the very hooks that are to be measured
    module = SimpleNamespace()
    costs = [_cost_ns(lambda: before(module, None)) + _cost_ns(lambda: after(module, None, None)) for _ in range(_CALIBRATIONS)]
    cost = statistics.median(costs) / 2  # the median: what others take of the cores meanwhile is no cost of ours
    marks.close()
    return cost


def _cost_ns(hook: Callable[[], None]) -> int:
    """Time of one call, as long after the one before as makes it read all clocks."""
    now = time.perf_counter_ns
    until = now() + 2 * QUIET_NS
    while (start := now()) < until:
        pass
    hook()
    return now() - start


def _torch_or_nothing(name: str) -> Callable[[], bool]:
    found: Any = sys.modules.get("torch")
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if callable(found) else bool
