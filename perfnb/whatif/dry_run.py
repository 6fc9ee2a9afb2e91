"""What a training would take of memory, before it is tried: by phase and category, with changes, without a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from perfnb.prediction import Unknown
from perfnb.text import byte_size
from perfnb.whatif.dry_run_estimate import MemoryEstimate, MemoryPrediction, estimate, estimate_by_lines
from perfnb.whatif.dry_run_levels import LEVELS, Residual
from perfnb.whatif.dry_run_real import measure
from perfnb.whatif.dry_run_setup import ModelFunctions, TrainingSetup, setup_from
from perfnb.whatif.dry_run_step import PHASES, CannotTrainError
from perfnb.whatif.dry_run_trace import DryRun, Target, dry_run

__all__ = ["LEVELS", "MeasuredPeak", "MemoryEstimate", "MemoryModel", "MemoryPrediction", "predict_memory"]

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
        optimizer_implementation, gradient_accumulation_steps, zero_stage, world_size, gradient_as_bucket_view.
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
    model = MemoryModel(model_fn, batch_fn, loss_fn, optimizer_fn, config=config, target=target, measured=measured,
                        allow_real_run=allow_real_run)  # fmt: skip
    changes = MappingProxyType(dict(changes or {}))
    before = model.estimate({})
    after = model.estimate(changes) if changes and not isinstance(before, Unknown) else before
    for made in (before, after):
        if isinstance(made, Unknown):
            return made
    assert isinstance(before, MemoryEstimate)  # noqa: S101 - for the type checker: the loop above has returned
    assert isinstance(after, MemoryEstimate)  # noqa: S101
    return MemoryPrediction(before, after, changes)


class MemoryModel:
    """A training whose memory can be asked for again and again; what was found once is kept.

    Parameters
    ----------
    model_fn, batch_fn, loss_fn, optimizer_fn, config, target, measured, allow_real_run
        As `predict_memory` takes them.

    Examples
    --------
    Where torch is installed::

        model = perfnb.MemoryModel(model_fn, batch_fn, loss_fn, optimizer_fn, config={"batch_size": 32})
        model.estimate({"batch_size": 64}).peak_bytes
    """

    def __init__(
        self,
        model_fn: Callable[[], Any],
        batch_fn: Callable[..., Any],
        loss_fn: Callable[[Any, Any], Any],
        optimizer_fn: Callable[[Iterable[Any]], Any],
        *,
        config: Mapping[str, Any],
        target: Target = "cuda",
        measured: Sequence[MeasuredPeak] = (),
        allow_real_run: bool = False,
    ) -> None:
        self.functions = ModelFunctions(model_fn, batch_fn, loss_fn, optimizer_fn)
        self.config: Mapping[str, Any] = MappingProxyType(dict(config))
        self.target: Target = target
        self._measured, self._allow_real_run = tuple(measured), allow_real_run
        self._estimates: dict[tuple[TrainingSetup, bool], MemoryEstimate | Unknown] = {}
        self._points: list[Residual] | Unknown | None = None

    def estimate(self, changes: Mapping[str, Any] | None = None) -> MemoryEstimate | Unknown:
        """The memory with some knobs changed; Unknown says what breaks the dry run, and what would help."""
        if importlib.util.find_spec("torch") is None:
            return Unknown(
                "torch is not installed here, and a dry run trains with it", "pip install 'perfnb[torch]'; its CPU build does"
            )
        changes = changes or {}
        now, setup = setup_from(self.config), setup_from({**self.config, **changes})
        for one in (now, setup):
            if isinstance(one, Unknown):
                return one
        assert isinstance(now, TrainingSetup)  # noqa: S101 - for the type checker: the loop above has returned
        assert isinstance(setup, TrainingSetup)  # noqa: S101
        by_line = set(changes) <= _BATCH_KNOBS
        key = (setup, by_line)
        if key not in self._estimates:
            self._estimates[key] = self._estimated(now, setup, by_line=by_line)
        return self._estimates[key]

    def _estimated(self, now: TrainingSetup, setup: TrainingSetup, *, by_line: bool) -> MemoryEstimate | Unknown:
        functions, target = self.functions, self.target
        if self._points is None:
            self._points = _residuals(functions, now, target, self._measured)
        residuals = self._points
        if isinstance(residuals, Unknown):
            return residuals if not self._allow_real_run else _real(functions, setup, target, residuals.reason)
        dry = dry_run(functions, setup, target)
        if isinstance(dry, Unknown):
            return dry if not self._allow_real_run else _real(functions, setup, target, dry.reason)
        own, is_real = residuals, False
        if dry.opaque and not own:
            if not self._allow_real_run:
                return Unknown(f"nothing is known of the memory of {', '.join(dry.opaque)}", _ONE_PEAK)
            own, is_real = _small_residuals(functions, setup), True
        return estimate(dry, setup, target, own, by_line=is_real or by_line, is_real=is_real)


def _residuals(
    functions: ModelFunctions, setup: TrainingSetup, target: Target, measured: Sequence[MeasuredPeak]
) -> list[Residual] | Unknown:
    """Measured minus dry peaks; an overall peak tells the residual of the highest phase, and stands for the others."""
    found = []
    for point in measured:
        if point.batch_size < 1:
            return Unknown(f"a peak was measured at a batch of {point.batch_size}", "a number of samples, 1 or more")
        own = setup.with_batch(point.batch_size, point.sequence_length)
        dry = dry_run(functions, own, target)
        if isinstance(dry, Unknown):
            return dry
        if point.peak_bytes < dry.phase_bytes["init"]:
            peak, least = byte_size(point.peak_bytes), byte_size(dry.phase_bytes["init"])
            reason = f"a peak of {peak} cannot be that of this training, whose model alone takes {least} before its first step"
            return Unknown(reason, "the peak in bytes, measured with the config as it is (torch.cuda.max_memory_allocated())")
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


def _real(functions: ModelFunctions, setup: TrainingSetup, target: Target, reason: str) -> MemoryEstimate | Unknown:
    """Real steps at two small batches, and a line through each phase's peaks."""
    try:
        points = [_real_point(functions, setup.with_batch(size)) for size in REAL_BATCHES]
    except CannotTrainError as error:
        return Unknown(error.reason, error.needs)
    return estimate_by_lines(points, setup, target, reason)


def _real_point(functions: ModelFunctions, setup: TrainingSetup) -> Residual:
    real = measure(functions, setup)
    return Residual(setup.size, {name: float(size) for name, size in real.items()}, max(real.values()))
