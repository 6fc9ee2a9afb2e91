"""One dry run: training steps under torch's fake tensors as a table of allocations, without weights and without a GPU."""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd

from perfnb.prediction import Unknown
from perfnb.read.memory_snapshot.allocator_settings import AllocatorSettings
from perfnb.run import Run
from perfnb.tables import conform
from perfnb.whatif.caching_allocator import CachingAllocator
from perfnb.whatif.dry_run_refusals import refusal
from perfnb.whatif.dry_run_setup import ModelFunctions, TrainingSetup
from perfnb.whatif.dry_run_step import PHASES, CannotTrainError, train
from perfnb.whatif.dry_run_tracker import DryWatcher, StorageLog, tracking_mode
from perfnb.whatif.memory_states import DATA_PARALLEL_NOTE, FIRST_SHARED_PARAMETERS, SHARING_NOTE, shared_out

Target = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True, eq=False)
class DryRun:
    """What a training would allocate.

    Attributes
    ----------
    run
        Its table allocations: address, bytes, phase and category of each block; of target cuda in whole blocks of the caching
        allocator, with reserved_bytes.
    phase_bytes
        Phase to its peak of the allocated bytes.
    peak_sequence
        Phase to the row of the table at which it is reached.
    reserved_bytes
        Peak of what the caching allocator would reserve, simulated with default settings; None for target cpu.
    opaque, workspace
        Operators of whose memory nothing is known, and all but scratch.
    fused_attention, narrow_products
        Operators that are another kernel on CUDA, and those that take scratch on the CPU alone.
    notes
        What the run had to do differently.
    """

    run: Run
    phase_bytes: Mapping[str, int]
    peak_sequence: Mapping[str, int]
    reserved_bytes: int | None
    opaque: tuple[str, ...]
    workspace: tuple[str, ...]
    fused_attention: tuple[str, ...]
    narrow_products: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """That of the highest phase."""
        return max(self.phase_bytes.values())

    @property
    def peak_phase(self) -> str:
        """The highest phase."""
        return max(self.phase_bytes, key=self.phase_bytes.__getitem__)


def dry_run(functions: ModelFunctions, setup: TrainingSetup, target: Target = "cuda") -> DryRun | Unknown:
    """What two training steps allocate and free, found without values; Unknown where the functions need values.

    Parameters
    ----------
    functions, setup
        What to train.
    target
        Where it will train. cuda: blocks of the caching allocator, foreach optimizers; cpu: bytes of torch's CPU allocator.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415 - analysis of files runs without it

    mode = FakeTensorMode()
    mode.__deepcopy__ = lambda _: mode  # else a deep copy of a layer (nn.Transformer makes its own so) takes the mode with it
    watcher = DryWatcher(mode)
    seen: dict[str, Any] = {}

    def optimizer_fn(parameters: Any) -> Any:
        seen["optimizer"] = functions.optimizer_fn(parameters)
        return seen["optimizer"]

    wrapped = ModelFunctions(functions.model_fn, functions.batch_fn, functions.loss_fn, optimizer_fn)
    try:
        with quiet(), mode, tracking_mode(watcher):
            train(wrapped, setup, watcher, is_for_cuda=target == "cuda")
            events = list(watcher.log.events)  # before the end frees all
    except CannotTrainError as error:
        return Unknown(error.reason, error.needs)
    except Exception as error:
        name = type(seen["optimizer"]).__name__ if "optimizer" in seen else setup.optimizer
        found = refusal(error, watcher.log.phase, name)
        if found is None:
            error.add_note(f"raised by the training itself, in phase {watcher.log.phase} of perfnb's dry run")
            raise
        return found
    finally:
        seen.clear()
    watcher.log.events = events
    if setup.zero_stage >= FIRST_SHARED_PARAMETERS and not watcher.unit_bytes:
        reason = "the model has no list of blocks of one class, so what stage 3 gathers at once is not known"
        return Unknown(reason, "a model whose repeated blocks stand in a ModuleList; or zero_stage 1 or 2")
    watcher.log.events, watcher.log.category = shared_out(
        events,
        watcher.log.category,
        zero_stage=setup.zero_stage,
        world_size=setup.world_size,
        unit_bytes=watcher.unit_bytes,
        is_bucket_view=setup.gradient_as_bucket_view,
    )
    sharing = SHARING_NOTE if setup.zero_stage else DATA_PARALLEL_NOTE
    return _summary(watcher, target, (sharing,) if setup.world_size > 1 else ())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection (it would free at chance moments), no log lines of torch about errors that are told anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, was_collecting = logger.disabled, gc.isenabled()
    logger.disabled = True
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="torch")
            yield
    finally:
        logger.disabled = was_disabled
        if was_collecting:
            gc.enable()


def _summary(watcher: DryWatcher, target: Target, notes: tuple[str, ...]) -> DryRun:
    table = _table(watcher.log, target)
    total = table["allocated_bytes"].to_numpy(dtype=np.int64)
    before = np.append(0, total[:-1])
    phase = table["phase"].astype(str).to_numpy()
    peaks, places = dict.fromkeys(PHASES, 0), dict.fromkeys(PHASES, 0)
    for name in PHASES:
        own = np.flatnonzero(phase == name)
        if len(own):
            best = own[np.argmax(np.maximum(total[own], before[own]))]
            peaks[name] = int(max(total[best], before[best]))
            places[name] = int(best if total[best] >= before[best] else best - 1)
    operators = watcher.operators
    batch = "batch_fn needed values and was run for real: what it allocates on its way is not counted"
    return DryRun(
        Run(allocations=table, signals=frozenset({"allocations"})),
        MappingProxyType(peaks),
        MappingProxyType(places),
        int(table["reserved_bytes"].max()) if target == "cuda" else None,
        tuple(sorted({*operators.names("unknown"), *(watcher.recurrent if target == "cuda" else ())})),
        tuple(operators.names("workspace")),
        tuple(operators.fused_attention),
        tuple(sorted(operators.narrow_products)),
        (*notes, *((batch,) if watcher.batch_was_real else ())),
    )


def _table(log: StorageLog, target: Target) -> pd.DataFrame:
    """The log as table allocations; `phase` is that of the row, so of an allocation the one that made the block."""
    allocator = CachingAllocator(AllocatorSettings())
    is_cuda, rows, total = target == "cuda", [], 0
    blocks: dict[int, list[tuple[tuple[int, int, int], int, int]]] = {}  # number: key, address, block bytes of each living one
    for place, (number, size, phase) in enumerate(log.events):
        if size == 0 or (is_cuda and number in log.scalars):
            continue
        if size > 0:
            key, address, block = (number, size, place), number, size
            if is_cuda:
                held = allocator.allocated_bytes
                address = allocator.malloc(key, size)
                block = allocator.allocated_bytes - held
            blocks.setdefault(number, []).append((key, address, block))
            change, action = block, "alloc"
        else:
            living = blocks[number]
            key, address, block = living.pop(next(i for i, one in enumerate(living) if one[0][1] == -size))
            if is_cuda:
                allocator.free(key)
            change, action = -block, "free_requested"
        total += change
        category = log.category.get(number, "temporary")
        rows.append((address, change, total, allocator.reserved_bytes, action, abs(size), phase, category))
    columns = ["address", "bytes", "allocated_bytes", "reserved_bytes", "action", "requested_bytes", "phase", "category"]
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.assign(rank=0, sequence=np.arange(len(frame)))
    # on the host a row has no device, and its allocator reserves nothing
    return conform("allocations", frame.assign(device=0) if is_cuda else frame.drop(columns="reserved_bytes"))
