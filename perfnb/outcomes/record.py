"""Writing the accuracy ledger: a prediction before its change is made, and what was found afterwards."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import msgspec

import perfnb
from perfnb.errors import OutcomesError
from perfnb.fix import Suggestion
from perfnb.outcomes.files import append, ledger_folder
from perfnb.outcomes.identity import device_of, machine_of, stored_text, stored_value, workload_of
from perfnb.outcomes.ledger import read_ledger
from perfnb.outcomes.rows import ChangeRow, OutcomeRow, PredictionRow, sealed
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.whatif.transform import model_names, transforms

if TYPE_CHECKING:
    from perfnb.verify import Outcome

_LONGEST_WORKLOAD: Final = 80


def record_prediction(
    run: Run,
    answer: Suggestion | Prediction | Unknown,
    changes: Sequence[Change] = (),
    *,
    config: Mapping[str, Any] | None = None,
    workload: str = "",
    shadow_after: float | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> str:
    """Write a prediction down before its change is tried; the number by which its outcome names it.

    What is written stays in the folder: numbers, the changed knobs with their values, digests that stand for the job and the
    machine, the accelerator's name. No other value of the config, no path and no host's name is in it.

    Parameters
    ----------
    run
        The run that it was made from.
    answer
        A suggestion, a prediction, or the refusal to make one: refusals are counted too.
    changes
        What it is about; a suggestion holds its own.
    config
        The training's config; the run's own by default.
    workload
        What is trained, in a few words: "resnet50 on imagenet". By default a digest of the config, see `workload_of`.
    shadow_after
        Of a refusal: the microseconds that the model would have said.
    folder
        Of the ledger; see `ledger_folder`.

    Returns
    -------
    str
        The number of the prediction.

    Raises
    ------
    OutcomesError
        If no change is named, or the folder cannot be written.
    """
    if isinstance(answer, Suggestion):
        changes, answer = answer.changes, answer.prediction
    if not changes:
        message = "no change is named: pass the changes that the prediction is about, or a suggestion"
        raise OutcomesError(message)
    given = answer if isinstance(answer, Prediction) else None
    config = run.config if config is None else config
    machine, machines = machine_of(run)
    named = [change.knob for change in changes]
    row = PredictionRow(
        prediction_id=uuid4().hex,
        predicted_at=_now(),
        sha256="",
        version=perfnb.__version__,
        model=given.model if given else _models(named),
        changes=tuple(ChangeRow(each.knob, stored_value(each.before), stored_value(each.after)) for each in changes),
        workload=stored_text(workload, _LONGEST_WORKLOAD) if workload else workload_of(config, named),
        machine=machine,
        machines=machines,
        device=device_of(run),
        torch=stored_text(run.machine.torch_version, _LONGEST_WORKLOAD),
        metric=given.metric if given else "step_us",
        before=_number(given.before if given else None),
        after=_number(given.after if given else None),
        low=_number(given.low if given else None),
        high=_number(given.high if given else None),
        simulated=_number(_simulated(given)),
        spread=_number(given.spread if given else None),
        basis=given.basis if given else "",
        assumptions=tuple(stored_text(each, changes=changes) for each in given.assumptions) if given else (),
        refused="" if isinstance(answer, Prediction) else stored_text(answer.reason, changes=changes),
        shadow_after=_number(shadow_after),
    )
    append(sealed({"row": "prediction", **msgspec.to_builtins(row)}), ledger_folder(folder))
    return row.prediction_id


def record_outcome(prediction_id: str, outcome: Outcome, *, folder: str | os.PathLike[str] | None = None) -> None:
    """Write down what was found after the change of a prediction that was written down before it.

    Void outcomes, and those with a caution that keeps them out of the statistics, are written with their reason.

    Parameters
    ----------
    prediction_id
        As `record_prediction` gave it.
    outcome
        `perfnb.verify(...)` of that prediction.
    folder
        Of the ledger; see `ledger_folder`.

    Raises
    ------
    OutcomesError
        If the ledger lacks the prediction, the outcome is of another one, or the folder cannot be written.
    """
    place = ledger_folder(folder)
    rows = read_ledger(place, shipped=False).rows
    own = rows[rows["prediction_id"].eq(prediction_id)]
    if own.empty:
        message = f"no prediction {prediction_id!r} in the ledger at {place}: write it with record_prediction before the change"
        raise OutcomesError(message)
    stated = own.iloc[0]
    given = outcome.prediction if isinstance(outcome.prediction, Prediction) else None
    if (given is None) != bool(stated["refused"]) or (given is not None and not math.isclose(given.after, stated["after"])):
        message = f"the outcome is of another prediction than {prediction_id}: verify the one that was written down"
        raise OutcomesError(message)
    row = OutcomeRow(
        prediction_id=prediction_id,
        prediction_sha256=str(stated["sha256"]),
        found_at=_now(),
        actual_before=outcome.before,
        actual=outcome.after,
        actual_low=outcome.after_low,
        actual_high=outcome.after_high,
        steps_before=outcome.steps_before,
        steps_after=outcome.steps_after,
        paired=outcome.paired,
        pressure_before=_number(outcome.pressure_before),
        pressure_after=_number(outcome.pressure_after),
        void=stored_text(outcome.unscored, changes=outcome.changes),
        inside=outcome.inside,
        sign_ok=outcome.sign_ok,
    )
    append({"row": "outcome", **msgspec.to_builtins(row)}, place)


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="milliseconds")


def _number(value: float | None) -> float | None:
    """The number as JSON can hold it."""
    return None if value is None or not math.isfinite(value) else float(value)


def _simulated(given: Prediction | None) -> float | None:
    return None if given is None else given.after if given.simulated is None else given.simulated


def _models(knobs: Sequence[str]) -> str:
    """Names of the models that would answer for the knobs, as a prediction names them; empty where there are none."""
    known = transforms()
    return model_names(known[knob].model for knob in knobs if knob in known)
