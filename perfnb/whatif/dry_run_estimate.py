"""Memory of a training as a dry run and measured points tell it: peak, phases, what holds it, and how far to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pandas as pd

from perfnb.memory_ledger import memory_at, memory_by
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.text import byte_size
from perfnb.whatif.dry_run_levels import LEVELS, SMALLEST_SHARE, Level, Residual, corrected, in_proportion, interval, line_through
from perfnb.whatif.dry_run_optimizers import EIGHT_BIT, EIGHT_BIT_NOTE
from perfnb.whatif.dry_run_setup import AUTOCAST, TrainingSetup
from perfnb.whatif.dry_run_step import PHASES
from perfnb.whatif.dry_run_trace import DryRun, Target

NOT_MODELLED: Final = "not modelled (measured)"
"""Category of the bytes that measured peaks add to a dry run."""

_ALWAYS: Final = (
    "gradients are set to None, and loss and batch dropped, at the end of each step",
    "one stream, nothing kept for logging",
)
_PHASE_COLUMNS: Final = ("phase", "dry_run_bytes", "residual_bytes", "peak_bytes")
_HELD_COLUMNS: Final = ("category", "phase", "bytes", "share", "blocks")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MemoryEstimate:
    """Memory of a training.

    Attributes
    ----------
    peak_bytes
        Highest allocated bytes.
    low_bytes, high_bytes
        80 % interval of it, a prior: it has not been compared with a GPU's peaks.
    level
        How far to believe it; `LEVELS` says what each rests on.
    basis
        That in words.
    peak_phase
        The phase that reaches it.
    phases
        One row per phase: phase, dry_run_bytes, residual_bytes (added by measured peaks), peak_bytes.
    held
        What holds the memory at the peak: category, phase (that made it), bytes, share, blocks; the bytes sum to the peak. Empty
        where nothing but real steps was run.
    reserved_bytes
        Peak of what the caching allocator would reserve for the blocks of the dry run, simulated; None for the CPU.
    unmodelled
        Operators whose memory the dry run does not see whole.
    assumptions
        What must hold.
    run
        The dry run's table allocations; None where there is none.
    """

    peak_bytes: int
    low_bytes: int
    high_bytes: int
    level: Level
    basis: str
    peak_phase: str
    phases: pd.DataFrame
    held: pd.DataFrame
    reserved_bytes: int | None
    unmodelled: tuple[str, ...]
    assumptions: tuple[str, ...]
    run: Run | None

    def __repr__(self) -> str:
        """The peak with its interval, and how far to believe it."""
        ends = f"{byte_size(self.low_bytes)} to {byte_size(self.high_bytes)}"
        unseen = f"; not seen whole: {', '.join(self.unmodelled)}" if self.unmodelled else ""
        peak = f"{byte_size(self.peak_bytes)} allocated at the peak, in {self.peak_phase}"
        return f"MemoryEstimate({peak} (80 % interval {ends}), level {self.level}: {self.basis}{unseen})"

    def verdict(self, usable_bytes: int) -> Literal["does not fit", "may run out of memory", "may fit", "fits"]:
        """Whether it fits in so many usable bytes; "fits" is only said where measured peaks stand behind it.

        Parameters
        ----------
        usable_bytes
            Memory of the device minus what others and the context hold.
        """
        if self.low_bytes > usable_bytes:
            return "does not fit"
        if max(self.high_bytes, self.reserved_bytes or 0) > usable_bytes:
            return "may run out of memory"
        return "fits" if self.level in "AB" else "may fit"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MemoryPrediction:
    """Memory of a training now and after changes.

    Attributes
    ----------
    before, after
        The two; the same where nothing changes.
    changes
        Knob to its new value.
    """

    before: MemoryEstimate
    after: MemoryEstimate
    changes: Mapping[str, Any]

    def __repr__(self) -> str:
        """Both, each with its interval and level."""
        if not self.changes:
            return f"MemoryPrediction(now {self.after!r})"
        words = ", ".join(f"{name}={value!r}" for name, value in self.changes.items())
        return f"MemoryPrediction(now {self.before!r},\n  with {words} {self.after!r})"

    @property
    def saved_bytes(self) -> int:
        """What the peak falls by; negative where it rises."""
        return self.before.peak_bytes - self.after.peak_bytes


def estimate(
    dry: DryRun, setup: TrainingSetup, target: Target, residuals: list[Residual], *, by_line: bool, is_real: bool
) -> MemoryEstimate:
    """The memory of one setup from its dry run and what measured points add to it.

    Parameters
    ----------
    dry, setup, target
        The dry run and what it was of.
    residuals
        Of measured points.
    by_line
        Whether the points are of this setup but for the batch.
    is_real
        Whether they are of real steps on the CPU.
    """
    add = corrected(dry.phase_bytes, residuals, setup.size)
    phases = _phases(dry.phase_bytes, add)
    highest = phases.iloc[int(phases["peak_bytes"].to_numpy().argmax())]
    unmodelled = [*dry.opaque, *dry.workspace]
    is_cuda = target == "cuda"
    unmodelled += dry.fused_attention if is_cuda else dry.narrow_products
    is_8bit = setup.optimizer in EIGHT_BIT
    unmodelled += [f"optimizer {setup.optimizer}"] if is_8bit else []
    has_other_peak = bool(unmodelled) and any(one.peak_phase not in ("", str(highest["phase"])) for one in residuals)
    is_narrow = is_cuda and setup.precision in AUTOCAST
    doubt = doubt_of(dry, residuals, setup.size, int(highest["peak_bytes"]), has_scratch=bool(unmodelled), by_line=by_line)
    level: Level = "C"
    if (is_real and is_cuda) or has_other_peak or doubt or is_8bit:
        level = "D"
    elif residuals:
        level = "B"
    elif unmodelled or is_narrow:
        level = "D"
    low, high = interval(dry.phase_bytes, residuals, setup.size, level, by_line=by_line)
    assumptions = [*_ALWAYS, *([] if setup.world_size > 1 else ["no data parallelism"]), *dry.notes]
    if is_cuda:
        assumptions.append("not validated on a GPU: operators are those that torch runs on the CPU")
        assumptions.append("workspaces of cuBLAS and other libraries are not counted")
    if is_8bit:
        assumptions.append(EIGHT_BIT_NOTE)
    if has_other_peak:
        assumptions.append("a measured peak was of another phase: what it adds to this one is not known")
    if doubt:
        assumptions.append(doubt)
    if is_narrow:
        assumptions.append("autocast casts the operators that it casts on the CPU; on CUDA its list is another")
    if residuals and not by_line:
        assumptions.append("what the dry run does not see stays the same under the changes")
    points = f", {len(residuals)} measured {'point' if len(residuals) == 1 else 'points'}" if residuals else ""
    return MemoryEstimate(
        int(highest["peak_bytes"]),
        low,
        high,
        level,
        f"dry run{points}{' on the CPU' if is_real else ''}: {LEVELS[level]}",
        str(highest["phase"]),
        phases,
        _held(dry, str(highest["phase"]), int(highest["residual_bytes"])),
        dry.reserved_bytes,
        tuple(sorted(unmodelled)),
        tuple(assumptions),
        dry.run,
    )


def estimate_by_lines(points: Sequence[Residual], setup: TrainingSetup, target: Target, reason: str) -> MemoryEstimate:
    """The memory of one setup from real steps alone: a line through the peaks of each phase.

    Parameters
    ----------
    points
        Real steps at small batches; residuals against nothing.
    setup, target
        What is estimated.
    reason
        Why there is no dry run.
    """
    nothing = dict.fromkeys(PHASES, 0)
    add = corrected(nothing, points, setup.size)
    phases = _phases(nothing, add)
    level: Level = "B" if target == "cpu" else "D"
    low, high = interval(nothing, points, setup.size, level, by_line=True)
    highest = phases.iloc[int(phases["peak_bytes"].to_numpy().argmax())]
    peak, phase = int(highest["peak_bytes"]), str(highest["phase"])
    return MemoryEstimate(
        peak,
        low,
        high,
        level,
        f"{len(points)} pairs of real steps on the CPU, then a line for each phase",
        phase,
        phases,
        pd.DataFrame([(NOT_MODELLED, phase, peak, 1.0, 0)], columns=list(_HELD_COLUMNS)),
        None,
        (),
        (*_ALWAYS, "no data parallelism", f"no dry run: {reason}", "each phase's peak is a line in the batch"),
        None,
    )


def doubt_of(dry: DryRun, residuals: Sequence[Residual], size: int, point: int, *, has_scratch: bool, by_line: bool) -> str:
    """Why measured points do not settle what the dry run does not see; empty where they do.

    Where operators take memory that no dry run sees, neither how that grows nor the moment of the real peak is known for sure. A
    line through the measured peaks and scratch in proportion to the batch are two other ways to get there: where one of them is
    more than 2 % away, something was taken for what it is not.

    Parameters
    ----------
    dry, residuals, size
        The dry run, the measured points, and the batch that is predicted.
    point
        The corrected peak.
    has_scratch
        Whether there are such operators.
    by_line
        Whether the points are of this setup but for the batch.
    """
    sizes = sorted({one.size for one in residuals})
    if not residuals or not has_scratch or sizes[-1] == size:
        return ""
    if len(sizes) == 1:
        return f"one measured point says little of {dry.opaque[0]}: a second one, at another batch, helps" if dry.opaque else ""
    others = {"scratch in proportion to the batch": in_proportion(dry.phase_bytes, residuals, size)}
    if by_line:
        others["a line through the measured peaks"] = line_through(residuals, size)
    way, other = max(others.items(), key=lambda one: abs(one[1] - point))
    if abs(other - point) <= SMALLEST_SHARE * point:
        return ""
    return f"{way} gives {byte_size(other)}, the corrected dry run {byte_size(point)}: a point nearer to this batch helps"


def _phases(dry: Mapping[str, int], add: Mapping[str, float]) -> pd.DataFrame:
    rows = [(name, dry[name], round(add[name]), dry[name] + round(add[name])) for name in PHASES]
    return pd.DataFrame(rows, columns=list(_PHASE_COLUMNS))


def _held(dry: DryRun, phase: str, residual: int) -> pd.DataFrame:
    """What holds the memory at the peak of a phase, the residual with it."""
    at_peak = memory_at(dry.run, sequence=dry.peak_sequence[phase])
    if isinstance(at_peak, Unknown):
        return pd.DataFrame(columns=list(_HELD_COLUMNS))
    held = memory_by(at_peak, ["category", "phase"])
    if residual:
        row = {"category": NOT_MODELLED, "phase": phase, "bytes": residual, "share": 0.0, "blocks": 0}
        held = pd.concat([held, pd.DataFrame([row])], ignore_index=True)
    return held.assign(share=held["bytes"] / max(int(held["bytes"].sum()), 1))
