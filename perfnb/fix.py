"""The @fix contract: a remedy becomes a Suggestion for one run's config, or says why it does not apply."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import ConfigError
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Machine, Run

StepParts = Mapping[str, float]
"""Mean microseconds per used step: each ledger part, `step` (the whole) and `loader` (host time inside the DataLoader)."""

_GIVEN: Final = ("config", "parts", "machine", "world_size", "run")


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A fix that does not apply to this run and config, and why."""

    fix: str
    reason: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """Values of a knob among which the what-if model chooses; the first is taken where there is no model."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change of a config with its reasons and its predicted effect.

    Attributes
    ----------
    fix
        Name of the fix.
    changes
        What to change; several where none works alone.
    answers
        Names of the findings that it answers.
    reason
        Why, in one sentence.
    prediction
        The step time after the change, or why it is not known.
    confidence
        Probability that the change helps by at least 3 %, from the prediction; None where that is unknown.
    caution
        What the user should check first; empty where nothing is known.
    """

    fix: str
    changes: tuple[Change, ...]
    answers: tuple[str, ...]
    reason: str
    prediction: Prediction | Unknown
    confidence: float | None = None
    caution: str = ""


@dataclass(frozen=True, slots=True)
class FixExample:
    """A config and what a fix makes of it: knob to value after, or part of the reason why not.

    The run is made when it is asked for: a panel needs the fixes, not their examples.
    """

    title: str
    config: Mapping[str, Any]
    after: Mapping[str, Any] | None
    reason: str = ""
    parts: StepParts = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    world_size: int | None = None
    make_run: Callable[[], Run] = Run

    @property
    def run(self) -> Run:
        """The run that the fix reads."""
        return self.make_run()


FixFunction = Callable[..., "Mapping[str, Any] | str"]


@dataclass(frozen=True, slots=True, eq=False)
class Fix:
    """A remedy under the contract; see `fix`."""

    name: str
    knobs: tuple[str, ...]
    answers: tuple[str, ...]
    reason: str
    caution: str
    source: str
    examples: tuple[FixExample, ...]
    function: FixFunction
    doc: str
    reads: tuple[str, ...]

    def proposal(
        self,
        config: Mapping[str, Any],
        parts: StepParts,
        machine: Machine | None = None,
        world_size: int | None = None,
        run: Run | None = None,
    ) -> Mapping[str, Any] | NotApplicable:
        """Knob to value after (or `OneOf`), or why the fix does not apply to this config.

        Refuses where the config lacks a knob, or every knob already has the value.
        """
        absent = [knob for knob in self.knobs if not has_knob(config, knob)]
        if absent:
            return NotApplicable(self.name, f"the config has no {' and no '.join(absent)}")
        try:
            return self._proposal(config, parts, machine, world_size, run)
        except ConfigError as error:  # such as one knob at two places
            return NotApplicable(self.name, str(error))

    def _proposal(
        self,
        config: Mapping[str, Any],
        parts: StepParts,
        machine: Machine | None,
        world_size: int | None,
        run: Run | None,
    ) -> Mapping[str, Any] | NotApplicable:
        given = {
            "config": config,
            "parts": parts,
            "machine": machine or Machine(),
            "world_size": world_size,
            "run": run or Run(),
        }
        answer = self.function(**{name: given[name] for name in self.reads})
        if isinstance(answer, str):
            return NotApplicable(self.name, answer)
        if all(value_of(config, knob) == after for knob, after in answer.items()):
            return NotApplicable(self.name, f"{' and '.join(f'{knob} is {after}' for knob, after in answer.items())} already")
        return answer


def fix(
    *,
    knobs: tuple[str, ...],
    answers: tuple[str, ...],
    reason: str,
    source: str,
    examples: tuple[FixExample, ...],
    caution: str = "",
) -> Callable[[FixFunction], Fix]:
    """Make a function a fix.

    The names of its parameters are what it reads: `config`, `parts` (see `StepParts`), `machine`, `world_size`, `run`. It returns
    knob to value after, or a sentence that says why it does not apply.

    Parameters
    ----------
    knobs
        Canonical names of what it changes.
    answers
        Detectors whose findings it answers.
    reason
        Why it helps, in one sentence.
    source
        Where the remedy and its limits are described.
    examples
        At least one in which it applies and one in which it does not.
    caution
        What the user should check first.

    Raises
    ------
    TypeError
        If a parameter names nothing that exists.
    """

    def made(function: FixFunction) -> Fix:
        reads = tuple(inspect.signature(function).parameters)
        unknown = [name for name in reads if name not in _GIVEN]
        if unknown:
            message = f"fix {function.__name__} reads {', '.join(unknown)}: there are {', '.join(_GIVEN)}"
            raise TypeError(message)
        doc = inspect.getdoc(function) or ""
        return Fix(function.__name__, knobs, answers, reason, caution, source, examples, function, doc, reads)

    return made
