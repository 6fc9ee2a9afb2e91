"""What a report tells of a run: the answers of diagnose, suggest and plan, gathered once for all of its formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from tqdm.auto import tqdm

from perfnb.apply import config_diff, preview
from perfnb.config.as_config import as_config
from perfnb.diagnose import diagnose
from perfnb.errors import PerfnbError
from perfnb.findings import Diagnosis
from perfnb.fix import NotApplicable, Suggestion
from perfnb.prediction import Change, Prediction
from perfnb.report_secrets import without_secret
from perfnb.run import Run
from perfnb.suggest import not_applicable, plan, suggest
from perfnb.training.suggest import HyperparameterSuggestion, suggest_hyperparameters
from perfnb.whatif.plan import PlanStep

_FEWEST_TO_PLAN: Final = 2
_LONGEST_LINE: Final = 200
_MOST_LINES: Final = 120
_HEAD: Final = 2


@dataclass(frozen=True, slots=True)
class Shown:
    """How a change looks in the config that it is for.

    Attributes
    ----------
    diff
        Lines of the unified diff of the config's own text; empty where nothing can be changed in it.
    snippets
        Code to paste for what the config has no place for.
    reason
        Why there is code to paste, or no diff; empty otherwise.
    """

    diff: tuple[str, ...]
    snippets: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Reported:
    """All that a report tells.

    Attributes
    ----------
    run, config
        What is reported on; the config as a mapping of canonical knobs.
    diagnosis, suggestions, refused, plan
        `diagnose`, `suggest`, `not_applicable` and `plan` of them.
    hyperparameters
        `suggest_hyperparameters` of them.
    shown
        How each suggestion's changes look in the config, in the order of `suggestions`.
    shown_hyperparameters
        The same of `hyperparameters`.
    """

    run: Run
    config: Mapping[str, Any]
    diagnosis: Diagnosis
    suggestions: tuple[Suggestion, ...]
    refused: tuple[NotApplicable, ...]
    plan: tuple[PlanStep, ...]
    hyperparameters: tuple[HyperparameterSuggestion, ...]
    shown: tuple[Shown, ...]
    shown_hyperparameters: tuple[Shown, ...]


def reported(
    run: Run,
    config: Any = None,
    *,
    diagnosis: Diagnosis | None = None,
    suggestions: Sequence[Suggestion] | None = None,
) -> Reported:
    """All that a report tells of a run; a progress bar on a terminal says what is being worked out.

    Parameters
    ----------
    run
        The run.
    config
        The training's config, any home of one as in `perfnb.as_config`; the run's own by default.
    diagnosis, suggestions
        `diagnose(run)` and `suggest(run, config)`, if they were made already.

    Returns
    -------
    Reported
        The answers.
    """
    home = as_config(run.config if config is None else config)
    with tqdm(total=4, desc="diagnosing", unit="part", leave=False, disable=None) as progress:
        told = diagnosis or diagnose(run)
        _go_on(progress, "suggesting")
        given = tuple(suggest(run, home, told) if suggestions is None else suggestions)
        refused = not_applicable(run, home, told)
        _go_on(progress, "planning")
        known = [each for each in given if isinstance(each.prediction, Prediction)]
        order = plan(run, home, known) if len(known) >= _FEWEST_TO_PLAN else ()
        _go_on(progress, "reading the curve")
        tried = suggest_hyperparameters(run, home)
        progress.update()
    return Reported(
        run,
        home,
        told,
        given,
        refused,
        tuple(order),
        tried,
        tuple(shown(each.changes, home) for each in given),
        tuple(shown(each.changes, home) for each in tried),
    )


def shown(changes: Sequence[Change], config: Mapping[str, Any]) -> Shown:
    """How changes look in a config: its own diff, and code to paste for what has no place in it.

    Parameters
    ----------
    changes
        What to change; none gives nothing.
    config
        Any home of a config.

    Returns
    -------
    Shown
        Where the config cannot be shown with the change, `reason` says why.

    Examples
    --------
    >>> shown([Change("num_workers", 0, 4)], {"num_workers": 0}).diff[-3:-1]
    ('-  "num_workers": 0', '+  "num_workers": 4')
    """
    if not changes:
        return Shown(())
    try:
        seen = preview(tuple(changes), config)
    except PerfnbError as error:
        return Shown((), reason=str(error))
    lines = [line.removesuffix("\r") for line in config_diff(seen.before, seen.after).split("\n")]
    if len(lines) > _HEAD:  # base names only: a report is passed on
        lines[:_HEAD] = [f"--- {PurePath(seen.before.label).name} before", f"+++ {PurePath(seen.after.label).name} after"]
    lines = lines[:-1] if lines and not lines[-1] else lines
    more = [f"... and {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
    told = [without_secret(line) for line in lines[:_MOST_LINES]]
    cut = [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in told]
    return Shown((*cut, *more), seen.snippets, seen.reason)


def _go_on(progress: tqdm[Any], what: str) -> None:
    progress.update()
    progress.set_description(what)
