"""probe_machine(): what this machine can do, measured in a few seconds, so that changes of arithmetic can be predicted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from tqdm.auto import tqdm

from perfnb.errors import RecordingError
from perfnb.record import machine_probe_layers as layers
from perfnb.record import machine_probe_rates as rates
from perfnb.record.cgroup import ControlGroup, usable_cores
from perfnb.record.loader_probe_quiet import LoadMeter, wait_until_quiet
from perfnb.record.loader_probe_result import NotProbed
from perfnb.record.loader_probe_states import kept_states
from perfnb.record.machine_probe_model import model_constants
from perfnb.record.machine_probe_timing import Constant
from perfnb.run import Run

PREFIX: Final = "machine."
"""Of every constant that this probe gives."""

_SHARES: Final = MappingProxyType({"model": 8.0, "layers": 4.0, "optimizer": 4.0})
"""Of the time: what a training's own model tells decides more than what any product does; all others get 1."""

_BAR: Final = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:g} s{postfix}"


@dataclass(frozen=True, slots=True)
class MachineProbe:
    """What a machine can do.

    Attributes
    ----------
    constants
        Name to value, each with `.low`, `.high` (10th and 90th percentile of the repeats) and `.n`. Of any machine:
        `machine.gemm.float32.flops_per_s`, `.gemm.bfloat16.flops_per_s`, `.gemm.bfloat16.speedup`,
        `.convolution.channels_last.speedup`, `.copy.bytes_per_s`, `.cast.bfloat16.bytes_per_s`,
        `.threads.<n>.<gemm, elementwise, small>_speedup`, with CUDA `.h2d.<pageable, pinned>.latency_us` and `.bytes_per_s`.
        With a model and a batch: `.model.fp32.us` (its forward and backward), `.model.bf16.ratio`,
        `.model.channels_last.ratio`, `.model.threads.<n>.ratio`; `.layers.fp32.us` (its linear layers and convolutions alone),
        `.layers.bf16.ratio`, `.layers.convolutions.fp32.us`, `.layers.channels_last.ratio`; with an optimizer's kind
        `.update.loop.us`, `.update.foreach.ratio`, `.update.fused.ratio`: times as shares of those in fp32, of a loop.
        `machine.pressure_cpu_share`, `.foreign_cores`, `.delay_share` (how busy others kept the machine) and `.measured_at`
        (Unix seconds).
    notes
        What could not be measured, with the reason.
    """

    constants: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def attach(self, run: Run) -> Run:
        """The run with these constants, for `predict`; a new value, the run stays as it is."""
        constants = MappingProxyType({**run.machine.constants, **self.constants})
        notes = (*run.notes, *(f"probe of the machine: {note}" for note in self.notes))
        return replace(run, machine=replace(run.machine, constants=constants), notes=notes)

    def __repr__(self) -> str:
        """One line: how many constants, and the speed-up of bfloat16."""
        count = sum(not name.endswith((".low", ".high", ".n")) for name in self.constants)
        speedup = self.constants.get(f"{PREFIX}gemm.bfloat16.speedup")
        return f"MachineProbe({count} constants" + (f", bfloat16 products {speedup:.2f}x)" if speedup else ")")


def probe_machine(
    model: Any = None,
    batch: Any = None,
    *,
    optimizer: Any = None,
    longest_s: float = 5.0,
    quiet_s: float = 60.0,
    only_when_quiet: bool = True,
    progress: bool = True,
) -> MachineProbe | NotProbed:
    """Rates of products, convolutions, copies and casts, what threads add, and what a model's own layers would cost otherwise.

    With it `predict` answers for `precision`, `memory_format`, `optimizer_implementation` and `torch_num_threads` what a run
    alone does not tell: `perfnb.predict(probe.attach(run), {"precision": "bf16"})`. Each figure is the median of up to ten
    repeats after warming up, in turn with what it is compared with. It trains nothing and writes nothing; a copy of the model
    runs forward and backward, the model itself forward once in evaluation mode, and every random state and number of threads is
    put back.

    Parameters
    ----------
    model, batch
        The training's model and one batch of its loader, both on the CPU: its layers are then timed in their own shapes.
    optimizer
        The training's optimizer, or the name of its kind ("adamw"): its implementations are timed on copies of the parameters.
    longest_s
        Seconds that measuring takes at most, roughly.
    quiet_s
        Seconds to wait at most until others leave the machine's cores alone.
    only_when_quiet
        Whether nothing is measured on a machine that stays busy. If it is measured all the same, the figures of the load are kept
        with the probe, and `predict` refuses to rest on it.
    progress
        Whether a progress bar is shown.

    Returns
    -------
    MachineProbe or NotProbed
        NotProbed where the machine stays busy, with the figures.

    Raises
    ------
    RecordingError
        If an argument makes no sense.

    Examples
    --------
    >>> import perfnb
    >>> probe = perfnb.probe_machine(model, batch, optimizer="adamw")  # doctest: +SKIP
    >>> perfnb.predict(probe.attach(run), {"precision": "bf16"})  # doctest: +SKIP
    """
    if not longest_s > 0.0:
        message = f"longest_s={longest_s!r} is no limit: give a number above 0"
        raise RecordingError(message)
    if (batch is None) != (model is None) and optimizer is None:
        message = "a model's layers are timed in the shapes of a batch: give both model and batch"
        raise RecordingError(message)
    parameters = None if optimizer is None else _parameters(model, optimizer)
    import torch  # noqa: PLC0415 - torch only where something is measured

    meter = LoadMeter()
    with tqdm(total=quiet_s, desc="waiting for a quiet machine", bar_format=_BAR, leave=False, disable=not progress) as bar:
        before = wait_until_quiet(quiet_s, meter, waited=bar.update)
    if only_when_quiet and not before.is_quiet:
        return NotProbed(
            f"the machine stayed busy for {quiet_s:g} s: {before}; times taken now would tell of that. Stop what else runs, "
            "or wait longer with quiet_s="
        )
    known = torch.get_num_threads()
    with kept_states():
        torch.set_num_threads(known)  # the training's number, not a loader worker's
        found, notes = _measured(torch, model, batch, (optimizer, parameters), longest_s, progress=progress)
    during = meter.read()
    load = {
        "pressure_cpu_share": max(before.pressure_share, during.pressure_share),
        "foreign_cores": max(before.foreign_cores, during.foreign_cores),
        "delay_share": max(before.delay_share, during.delay_share),
        "measured_at": time.time(),
    }
    constants = {name: value for each, item in found.items() for name, value in item.named(f"{PREFIX}{each}").items()}
    constants |= {f"{PREFIX}{name}": value for name, value in load.items() if value == value}  # noqa: PLR0124 - NaN: not told
    return MachineProbe(MappingProxyType(constants), tuple(notes))


def _measured(
    torch: Any, model: Any, batch: Any, updated: tuple[Any, Any], longest_s: float, *, progress: bool
) -> tuple[dict[str, Constant], list[str]]:
    optimizer, parameters = updated
    cores = usable_cores(ControlGroup().cpu_limit())
    work: dict[str, Callable[[float], Iterable[tuple[str, Constant]]]] = {
        "products": lambda limit: rates.products(torch, limit),
        "convolutions": lambda limit: rates.convolutions(torch, limit),
        "copies": lambda limit: rates.memory(torch, limit),
        "threads": lambda limit: rates.threads(torch, cores, limit),
        "copies to the GPU": lambda limit: rates.copies_to_gpu(torch, limit),
    }
    if model is not None and batch is not None:
        work["model"] = lambda limit: model_constants(torch, model, batch, cores, limit).items()
        work["layers"] = lambda limit: layers.layer_constants(torch, layers.layers_of(torch, model, batch), limit).items()
    if optimizer is not None:
        kind = optimizer if isinstance(optimizer, str) else type(optimizer).__name__
        work["optimizer"] = lambda limit: layers.update_constants(torch, parameters, kind.lower(), limit).items()
    shares = {name: _SHARES.get(name, 1.0) for name in work}
    found: dict[str, Constant] = {}
    notes = []
    with tqdm(total=len(work), desc="measuring the machine", unit="kind", leave=False, disable=not progress) as bar:
        for name, measure in work.items():
            bar.set_postfix_str(name)
            try:
                found |= dict(measure(longest_s * shares[name] / sum(shares.values())))
            except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, MemoryError) as error:
                notes.append(f"{name} could not be measured: {type(error).__name__}: {str(error)[:200]}")
            bar.update()
    return found, notes


def _parameters(model: Any, optimizer: Any) -> list[Any]:
    if not isinstance(optimizer, str):
        return [each for group in optimizer.param_groups for each in group["params"]]
    if model is None:
        message = f"optimizer={optimizer!r} does not say how large the parameters are: give the optimizer itself, or the model"
        raise RecordingError(message)
    return list(model.parameters())
