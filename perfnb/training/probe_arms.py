"""The branches of a probe, each a factor of one setting of the optimizer, and how it is set step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from perfnb import text
from perfnb.errors import ProbeRefused
from perfnb.prediction import Change
from perfnb.training.probe_effect import factor_range
from perfnb.training.probe_state import is_tensor

SETTINGS: Final = MappingProxyType({"learning_rate": "lr", "weight_decay": "weight_decay", "momentum": "momentum"})
"""Knob to its name in the optimizer's parameter groups."""

_SAME: Final = 1e-6  # relative: what float32 makes of a rate
_SMALLEST: Final = 1e-300

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """One branch.

    Attributes
    ----------
    name
        What to call it, such as "x0.4".
    factor
        What the setting is multiplied by: a number, or a function of the step within the probe, from 0 on.
    """

    name: str
    factor: float | Callable[[int], float]

    def at(self, step: int) -> float:
        """Factor at a step."""
        return float(self.factor(step)) if callable(self.factor) else float(self.factor)

    @property
    def is_base(self) -> bool:
        """Whether it is the present setting."""
        return not callable(self.factor) and float(self.factor) == 1.0


BASE: Final = Arm("x1", 1.0)


def arms_of(changes: Iterable[Any], knob: str, steps: int) -> tuple[Arm, ...]:
    """Branches of a probe, the present setting first.

    Parameters
    ----------
    changes
        Factors; functions that give a factor for the step; arms; or a `Change` of the knob.
    knob
        What is changed.
    steps
        Steps of the probe.

    Raises
    ------
    ProbeRefused
        If a change cannot be made a factor above zero, none is left, or two have one name.
    """
    if knob not in SETTINGS:
        message = f"a probe changes {', '.join(SETTINGS)}, not {text.name(knob)}"
        raise ProbeRefused(message)
    arms = [_arm(change, knob) for change in changes]
    for arm in arms:
        low, high = factor_range(arm.factor, steps)
        if not (low > 0.0 and math.isfinite(high)):
            message = f"the factor of {arm.name} goes from {low:g} to {high:g}: factors are numbers above zero"
            raise ProbeRefused(message)
    others = [arm for arm in arms if not arm.is_base]
    if not others:
        message = "nothing to compare: name a factor other than 1, which is always run, such as [0.4, 2.5]"
        raise ProbeRefused(message)
    names = [arm.name for arm in others]
    if len(set(names)) < len(names):
        message = f"two branches have the same name: {', '.join(names)}"
        raise ProbeRefused(message)
    return (BASE, *others)


def _arm(change: Any, knob: str) -> Arm:
    if isinstance(change, Arm):
        return change
    if isinstance(change, Change):
        return _from_change(change, knob)
    if callable(change):
        return Arm(text.name(getattr(change, "__name__", "function of the step")), change)
    if isinstance(change, (int, float)) and not isinstance(change, bool):
        return Arm(f"x{change:g}", float(change))
    message = f"{text.name(repr(change))} is no change: give factors such as 0.4, functions of the step, or a Change of {knob}"
    raise ProbeRefused(message)


def _from_change(change: Change, knob: str) -> Arm:
    numbers = [each for each in (change.before, change.after) if isinstance(each, (int, float)) and not isinstance(each, bool)]
    if change.knob != knob or len(numbers) < 2 or not numbers[0]:  # noqa: PLR2004 - before and after
        message = f"{text.name(str(change))} is no factor of {knob}: both values have to be numbers, and the one before not zero"
        raise ProbeRefused(message)
    factor = float(f"{numbers[1] / numbers[0]:.6g}")
    return Arm(f"x{factor:g}", factor)


class Setting:
    """One setting of every parameter group of the optimizers, and what it was when a step used it.

    Parameters
    ----------
    optimizers
        The optimizers.
    knob
        A key of `SETTINGS`.
    """

    def __init__(self, optimizers: tuple[Any, ...], knob: str) -> None:
        self._optimizers, self._key, self._knob = optimizers, SETTINGS[knob], knob
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        if not all(self._key in group for group in self._groups):
            message = f"not every parameter group of {type(optimizers[0]).__name__} has {self._key!r}: nothing to multiply"
            raise ProbeRefused(message)
        self.trace: list[Values] = []
        self.used: Values | None = None
        self.optimizer_steps = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> Setting:
        """Look at each step of the optimizers."""
        for optimizer in self._optimizers:
            self._hooks.append(optimizer.register_step_pre_hook(self._seen))
        return self

    def __exit__(self, *_: object) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()

    def enter(self, arm: Arm, step: int) -> Values:
        """Set what the branch's step is to use: the factor times what the base had there; what was set."""
        self.used = None
        if arm.is_base:
            self.trace.append(self.values())
            return self.trace[-1]
        wanted = tuple(arm.at(step) * each for each in self.trace[step])
        for group, value in zip(self._groups, wanted, strict=True):
            if is_tensor(group[self._key]):
                group[self._key].fill_(value)
            else:
                group[self._key] = value
        return wanted

    def values(self) -> Values:
        """What is set now, group by group."""
        return tuple(float(group[self._key]) for group in self._groups)

    def check_used(self, wanted: Values) -> None:
        """Refuse where the step did not use what was set when it began.

        Raises
        ------
        ProbeRefused
            If something set another value before the optimizer stepped.
        """
        if self.used is None or all(_is_same(one, other) for one, other in zip(self.used, wanted, strict=True)):
            return
        message = (
            f"the step began with {self._key} {wanted[0]:.6g}, and the optimizer used {self.used[0]:.6g}: step_function sets "
            f"{self._knob} before it calls optimizer.step(), so a factor would not last. Step the scheduler after the optimizer"
        )
        raise ProbeRefused(message)

    def _seen(self, *_: object) -> None:
        self.optimizer_steps += 1
        if self.used is None:
            self.used = self.values()


def _is_same(one: float, other: float) -> bool:
    return abs(one - other) <= max(_SAME * max(abs(one), abs(other)), _SMALLEST)
