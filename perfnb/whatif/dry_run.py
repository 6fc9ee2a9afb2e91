"""What a training would take of memory, before it is tried: by phase and category, with changes, without a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from perfnb.prediction import Unknown
from perfnb.whatif.dry_run_estimate import MemoryEstimate, MemoryPrediction, estimate, estimate_by_lines
from perfnb.whatif.dry_run_levels import LEVELS, Residual
from perfnb.whatif.dry_run_real import measure
from perfnb.whatif.dry_run_setup import ModelFunctions, TrainingSetup, setup_from
from perfnb.whatif.dry_run_step import PHASES, CannotTrainError
from perfnb.whatif.dry_run_trace import DryRun, Target, dry_run

__all__ = ["LEVELS", "MeasuredPeak", "MemoryEstimate", "MemoryPrediction", "predict_memory"]

REAL_BATCHES: Final = (2, 4)
"""Batch sizes of the real steps that stand in for a dry run: 1 is an error to layers that take statistics of a batch."""

_ONE_PEAK: Final = (
    "one measured peak, at any batch size: measured=[MeasuredPeak(batch_size, torch.cuda.max_memory_allocated())]; or "
    "allow_real_run=True, which measures two small steps on the CPU"
)
_BATCH_KNOBS: Final = frozenset({"batch_size", "sequence_length"})


@dataclass(frozen=True, slots=True)
class MeasuredPeak:
    """A peak of the allocated bytes of the training as it is now, at some batch.

    Attributes
    ----------
    batch_size
        Samples of a micro-batch.
    peak_bytes
        `torch.cuda.max_memory_allocated()` after a few steps.
    sequence_length
        Where the training has one and it was another than the config's.
    """

    batch_size: int
    peak_bytes: int
    sequence_length: int | None = None


def predict_memory(
    model_fn: Callable[[], Any],
    batch_fn: Callable[..., Any],
    loss_fn: Callable[[Any, Any], Any],
    optimizer_fn: Callable[[Iterable[Any]], Any],
    changes: Mapping[str, Any] | None = None,
    *,
    config: Mapping[str, Any],
    target: Target = "cuda",
    measured: Sequence[MeasuredPeak] = (),
    allow_real_run: bool = False,
) -> MemoryPrediction | Unknown:
    """Peak memory of a training now and with other knobs, without a GPU and without allocating its weights.

    Parameters
    ----------
    model_fn
        Called as `model_fn()`: the model, on the CPU.
    batch_fn
        Called as `batch_fn(batch_size)`, or `batch_fn(batch_size, sequence_length)` where the config has that: a batch.
    loss_fn
        Called as `loss_fn(model, batch)`: the loss as a tensor; it reads no values.
    optimizer_fn
        Called as `optimizer_fn(parameters)`: the optimizer.
    changes
        Knob to its new value: batch_size, sequence_length, precision, activation_checkpointing, optimizer,
        optimizer_implementation, gradient_accumulation_steps.
    config
        Those knobs as they are now; batch_size at least. Knobs that are absent stay as the functions have them.
    target
        Where the training runs: "cuda" (not validated on a GPU) or "cpu".
    measured
        Peaks that were measured with the config as it is, at one or more batches: they correct what no dry run sees.
    allow_real_run
        Where there is no other answer, train two small steps on the CPU for real.

    Returns
    -------
    MemoryPrediction or Unknown
        Unknown says what breaks the dry run, or which operators it knows nothing of, and what would help.

    Examples
    --------
    Eight numbers in, four out, with twice the batch (where torch is installed)::

        found = perfnb.predict_memory(
            lambda: torch.nn.Linear(8, 4),
            lambda batch_size: torch.randn(batch_size, 8),
            lambda model, batch: model(batch).square().mean(),
            lambda parameters: torch.optim.AdamW(parameters),
            {"batch_size": 64},
            config={"batch_size": 32},
        )
        found.after.peak_bytes, found.after.held
    """
    if importlib.util.find_spec("torch") is None:
        return Unknown(
            "torch is not installed here, and a dry run trains with it", "pip install 'perfnb[torch]'; its CPU build does"
        )
    functions = ModelFunctions(model_fn, batch_fn, loss_fn, optimizer_fn)
    changes = MappingProxyType(dict(changes or {}))
    now, then = setup_from(config), setup_from({**config, **changes})
    for setup in (now, then):
        if isinstance(setup, Unknown):
            return setup
    assert isinstance(now, TrainingSetup)  # noqa: S101 - for the type checker: the loop above has returned
    assert isinstance(then, TrainingSetup)  # noqa: S101
    residuals = _residuals(functions, now, target, measured)
    if isinstance(residuals, Unknown):
        return residuals if not allow_real_run else _real(functions, now, then, target, changes, residuals.reason)
    estimates = []
    for setup in (now, then) if changes else (now,):
        dry = dry_run(functions, setup, target)
        if isinstance(dry, Unknown):
            return dry if not allow_real_run else _real(functions, now, then, target, changes, dry.reason)
        own, is_real = residuals, False
        if dry.opaque and not own:
            if not allow_real_run:
                return Unknown(f"nothing is known of the memory of {', '.join(dry.opaque)}", _ONE_PEAK)
            own, is_real = _small_residuals(functions, setup), True
        by_line = is_real or set(changes) <= _BATCH_KNOBS
        estimates.append(estimate(dry, setup, target, own, by_line=by_line, is_real=is_real))
    return MemoryPrediction(estimates[0], estimates[-1], changes)


def _residuals(
    functions: ModelFunctions, setup: TrainingSetup, target: Target, measured: Sequence[MeasuredPeak]
) -> list[Residual] | Unknown:
    """Measured minus dry peaks; an overall peak tells the residual of the highest phase, and stands for the others."""
    found = []
    for point in measured:
        own = setup.with_batch(point.batch_size, point.sequence_length)
        dry = dry_run(functions, own, target)
        if isinstance(dry, Unknown):
            return dry
        extra = float(point.peak_bytes - dry.peak_bytes)
        found.append(Residual(own.size, dict.fromkeys(PHASES, extra), point.peak_bytes, dry.peak_phase))
    return found


def _small_residuals(functions: ModelFunctions, setup: TrainingSetup) -> list[Residual]:
    """Residuals of each phase, of real small steps on the CPU."""
    found = []
    for batch_size in REAL_BATCHES:
        own = setup.with_batch(batch_size)
        dry, real = dry_run(functions, own, "cpu"), measure(functions, own)
        if isinstance(dry, DryRun):
            extra = {phase: float(real[phase] - dry.phase_bytes[phase]) for phase in PHASES}
            found.append(Residual(own.size, extra, max(real.values())))
    return found


def _real(
    functions: ModelFunctions,
    now: TrainingSetup,
    then: TrainingSetup,
    target: Target,
    changes: Mapping[str, Any],
    reason: str,
) -> MemoryPrediction | Unknown:
    """Real steps at two small batches, and a line through each phase's peaks."""
    estimates = []
    for setup in (now, then) if changes else (now,):
        try:
            points = [_real_point(functions, setup.with_batch(size)) for size in REAL_BATCHES]
        except CannotTrainError as error:
            return Unknown(error.reason, error.needs)
        estimates.append(estimate_by_lines(points, setup, target, reason))
    return MemoryPrediction(estimates[0], estimates[-1], changes)


def _real_point(functions: ModelFunctions, setup: TrainingSetup) -> Residual:
    real = measure(functions, setup)
    return Residual(setup.size, {name: float(size) for name, size in real.items()}, max(real.values()))
