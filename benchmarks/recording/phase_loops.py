"""Five training loops with timers written into them, each recorded at the same time: what the timers say, and what the hooks."""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.functional import mse_loss

from perfnb.record.recorder import Recorder

FIRST_STEP: Final = 10
"""Steps before it are not compared: torch and the hooks settle in them."""

_WIDTH: Final = 512
_HIDDEN: Final = 1024
_RAW: Final = 1024
_RANKS: Final = 2
_DEVICE: Final = "cpu"


@dataclass(frozen=True, slots=True)
class Compared:
    """One phase of one loop, summed over its steps.

    Attributes
    ----------
    loop, phase
        Which.
    timer_ms, hook_ms
        What the timers in the loop and the hooks measured.
    calls
        Stretches of it that the timers measured.
    step_share
        Of the time of the steps, by the timers.
    step_ms, steps
        Mean time of a step, and how many were compared.
    """

    loop: str
    phase: str
    timer_ms: float
    hook_ms: float
    step_share: float
    step_ms: float
    steps: int
    calls: int

    @property
    def difference(self) -> float:
        """Share by which the hooks say more than the timers."""
        return self.hook_ms / self.timer_ms - 1


@dataclass(slots=True)
class Timers:
    """Stretches of time that a loop measured itself: phase, start and end in ns."""

    taken: list[tuple[str, int, int]] = field(default_factory=list)

    @contextlib.contextmanager
    def of(self, phase: str) -> Iterator[None]:
        """Time what runs inside."""
        start = time.perf_counter_ns()
        yield
        self.taken.append((phase, start, time.perf_counter_ns()))


def plain(timers: Timers, steps: int) -> None:
    """A loss that is a function: the hooks count what lies between a forward pass and backward() as forward."""
    _steps(timers, *_network(), steps)


def accumulation(timers: Timers, steps: int, micro_batches: int = 2) -> None:
    """Several backward passes for one step of the optimizer."""
    model, optimizer = _network()
    batches = iter(_loader(steps * micro_batches, 32))
    for _ in range(steps):
        for _ in range(micro_batches):
            with timers.of("data"):
                inputs, targets = next(batches)
            with timers.of("forward"):
                outputs = model(inputs)
            with timers.of("forward"):
                loss = mse_loss(outputs, targets) / micro_batches
            with timers.of("backward"):
                loss.backward()
        with timers.of("optimizer"):
            optimizer.step()
        optimizer.zero_grad()


def mixed_precision(timers: Timers, steps: int) -> None:
    """Autocast to bfloat16, and a gradient scaler whose step holds the optimizer's."""
    model, optimizer = _network()
    scaler = torch.amp.GradScaler(_DEVICE)
    batches = iter(_loader(steps))
    for _ in range(steps):
        with timers.of("data"):
            inputs, targets = next(batches)
        optimizer.zero_grad()
        with torch.autocast(_DEVICE, torch.bfloat16):
            with timers.of("forward"):
                outputs = model(inputs)
            with timers.of("forward"):
                loss = scaler.scale(mse_loss(outputs.float(), targets))
        with timers.of("backward"):
            loss.backward()
        with timers.of("optimizer"):
            scaler.step(optimizer)
        scaler.update()


def two_optimizers(timers: Timers, steps: int) -> None:
    """A generator and a discriminator, trained in turn as in a GAN; a step ends with the discriminator's."""
    generator, generator_optimizer = _network()
    discriminator, discriminator_optimizer = _network()
    batches = iter(_loader(steps, 24))
    for _ in range(steps):
        with timers.of("data"):
            real, noise = next(batches)
        with timers.of("forward"):
            made = generator(noise)
        with timers.of("forward"):
            truth = discriminator(real)
        with timers.of("forward"):
            guess = discriminator(made.detach())
        with timers.of("forward"):
            loss = (truth - 1).square().mean() + guess.square().mean()
        with timers.of("backward"):
            loss.backward()
        with timers.of("optimizer"):
            discriminator_optimizer.step()
        discriminator_optimizer.zero_grad()
        with timers.of("forward"):
            guess = discriminator(made)
        with timers.of("forward"):
            loss = (guess - 1).square().mean()
        with timers.of("backward"):
            loss.backward()
        with timers.of("optimizer"):
            generator_optimizer.step()
        generator_optimizer.zero_grad()
        discriminator_optimizer.zero_grad()


def data_parallel(timers: Timers, steps: int) -> None:
    """DistributedDataParallel, in each of some processes: gradients are exchanged inside backward."""
    model, _ = _network()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    _steps(timers, wrapped, torch.optim.Adam(wrapped.parameters(), lr=1e-4), steps)


def _steps(timers: Timers, model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """One batch, one update, again and again."""
    batches = iter(_loader(steps))
    for _ in range(steps):
        with timers.of("data"):
            inputs, targets = next(batches)
        optimizer.zero_grad()
        with timers.of("forward"):
            outputs = model(inputs)
        with timers.of("forward"):
            loss = mse_loss(outputs, targets)
        with timers.of("backward"):
            loss.backward()
        with timers.of("optimizer"):
            optimizer.step()


LOOPS: Final[dict[str, Callable[[Timers, int], None]]] = {
    "plain": plain,
    "gradient accumulation": accumulation,
    "mixed precision": mixed_precision,
    "two optimizers": two_optimizers,
}
DATA_PARALLEL: Final = "data parallel, 2 ranks"


def compared(name: str, steps: int) -> list[Compared]:
    """Run a loop of `LOOPS`, or `DATA_PARALLEL`, and compare every phase that its timers know.

    Parameters
    ----------
    name, steps
        Which loop, and how many steps are compared.
    """
    if name == DATA_PARALLEL:
        return _on_ranks(steps)
    return _recorded(name, LOOPS[name], steps)


def _recorded(name: str, loop: Callable[[Timers, int], None], steps: int) -> list[Compared]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    timers = Timers()
    gc.collect()  # what was imported is looked through now, not between a timer and a hook
    with Recorder() as recorder:
        loop(timers, FIRST_STEP + steps + 1)
    rows = recorder._sink.rows  # type: ignore[union-attr] # noqa: SLF001 - in ns, as the loop's timers are
    edges = {row[0]: (row[1], row[2]) for row in rows["steps"]}
    last = max(edges)
    begin, end = edges[FIRST_STEP][0], edges[last][1]
    by_timer: dict[str, int] = {}
    calls: dict[str, int] = {}
    for phase, started, ended in timers.taken:
        if begin <= started and ended <= end + _LATE_NS:
            by_timer[phase] = by_timer.get(phase, 0) + ended - started
            calls[phase] = calls.get(phase, 0) + 1
    by_hook: dict[str, int] = {}
    for step, phase, wall_ns, *_ in rows["phases"]:
        if step >= FIRST_STEP:
            # what DDP waits for inside backward is told apart by the hooks, and backward to the loop
            shown = "backward" if phase == "communication" else phase
            by_hook[shown] = by_hook.get(shown, 0) + wall_ns
    by_timer["other"] = end - begin - sum(by_timer.values())
    number = last - FIRST_STEP + 1
    return [
        Compared(
            name,
            phase,
            by_timer[phase] / 1e6,
            by_hook.get(phase, 0) / 1e6,
            by_timer[phase] / (end - begin),
            (end - begin) / number / 1e6,
            number,
            calls.get(phase, 0),
        )
        for phase in ("data", "forward", "backward", "optimizer", "other")
    ]


_LATE_NS: Final = 2_000_000
"""The hooks end a step inside the optimizer's, the loop's timer right after it."""


def _on_ranks(steps: int) -> list[Compared]:
    with tempfile.TemporaryDirectory(prefix="perfnb-agreement-") as folder:
        torch.multiprocessing.spawn(_rank, (folder, steps), nprocs=_RANKS)  # type: ignore[attr-defined]
        found = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(_RANKS)]
    return [Compared(**one) for each in found for one in each]


def _rank(rank: int, folder: str, steps: int) -> None:
    store = torch.distributed.FileStore(f"{folder}/store", _RANKS)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=_RANKS)
    found = _recorded(f"data parallel, rank {rank} of {_RANKS}", data_parallel, steps)
    torch.distributed.destroy_process_group()
    named = [{name: getattr(one, name) for name in Compared.__slots__} for one in found]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(named))


class _Rows(torch.utils.data.Dataset[Any]):
    """Rows that take some work to make, as decoding does."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows = torch.randn(64, _RAW)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: int) -> Any:
        row = self._rows[place % len(self._rows)]
        return row.sort().values[:_WIDTH], row[:_WIDTH]


def _loader(batches: int, batch_size: int = 48) -> Any:
    return torch.utils.data.DataLoader(_Rows(batches * batch_size), batch_size=batch_size)


def _network() -> tuple[Any, Any]:
    """A network whose optimizer's step takes long enough to be compared, and its optimizer."""
    layers = (torch.nn.Linear(_WIDTH, _HIDDEN), torch.nn.Linear(_HIDDEN, _HIDDEN), torch.nn.Linear(_HIDDEN, _WIDTH))
    model = torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.ReLU())))
    return model, torch.optim.Adam(model.parameters(), lr=1e-4)
