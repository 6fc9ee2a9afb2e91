"""Forward, backward and optimizer on another number of threads, none of which waits for a core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perfnb.prediction import Change, Unknown
from perfnb.whatif.machine_rates import MODEL_ERROR, rate
from perfnb.whatif.phase_work import COMPUTE, PhaseEdit, factor_of, phases_us
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

SCALING_ERROR: Final = 0.15  # a prior (whatif contract, section 7: torch_num_threads)
_KINDS: Final = ("gemm", "elementwise", "small")


def timed_threads(model: StepModel, change: Change) -> StepModel | None:
    """The step with forward and backward as the model itself was timed with both numbers of threads; None where it was not.

    Parameters
    ----------
    model
        The model of a CPU job.
    change
        Threads now and after; they may be more than there are cores.
    """
    if model.measured.is_device_job:
        return None
    now, after = (
        rate(model.machine, f"model.threads.{count}.ratio", is_shadow=model.is_shadow) for count in (change.before, change.after)
    )
    if isinstance(now, Unknown) or isinstance(after, Unknown) or isinstance(phases_us(model, *COMPUTE, "optimizer"), Unknown):
        return None
    factor = Estimate(after.value / now.value, after.low / now.high, after.high / now.low)
    told = (
        f"forward, backward and the update take {factor.value:.2f} times as long ({factor.low:.2f} to {factor.high:.2f}), as the "
        "model's forward and backward did on one batch here"
    )
    edited = model.with_phase_edit(change.knob, PhaseEdit((*COMPUTE, "optimizer"), factor_of(change.knob)), factor)
    return edited.with_estimates(threads=Estimate.exactly(float(change.after))).with_error("part", MODEL_ERROR, told)


def scaled_threads(model: StepModel, change: Change) -> StepModel | Unknown:
    """The step with operators as fast on so many threads as products and elementwise work were measured to be here.

    How much of each kind the step holds is not known: the middle is the geometric mean of what large products and small operators
    gain or lose, the ends are the least and the most of any kind.

    Parameters
    ----------
    model
        The model of a CPU job.
    change
        Threads now and after, both at most as many as cores.
    """
    if model.measured.is_device_job:
        reason = "on a device job the host's threads share their cores with what launches the device's work"
        return Unknown(reason, "a run with the other number of threads")
    factors = {}
    for kind in _KINDS:
        now, after = (
            rate(model.machine, f"threads.{count}.{kind}_speedup", is_shadow=model.is_shadow)
            for count in (change.before, change.after)
        )
        for each in (now, after):
            if isinstance(each, Unknown):
                return Unknown(f"how operators scale with threads is not known: {each.reason}", each.needs)
        if isinstance(now, Estimate) and isinstance(after, Estimate):
            factors[kind] = now.value / after.value
    missing = phases_us(model, *COMPUTE, "optimizer")
    if isinstance(missing, Unknown):
        return missing
    middle = (factors["gemm"] * factors["small"]) ** 0.5
    factor = Estimate(middle, min(*factors.values(), middle), max(*factors.values(), middle))
    told = f"operators take between {factor.low:.2f} and {factor.high:.2f} times as long, as three kinds of work did here"
    edit = PhaseEdit((*COMPUTE, "optimizer"), factor_of(change.knob), None)
    edited = model.with_phase_edit(change.knob, edit, factor)
    edited = edited.with_estimates(threads=Estimate.exactly(float(change.after)))
    return edited.with_error("part", SCALING_ERROR, told)
