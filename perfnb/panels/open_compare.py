"""perfnb.compare_panel: the compare panel with perfnb's own functions wired in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from perfnb.analyses.compare import compare_kernels, compare_operators
from perfnb.analyses.compare_parts import compare_parts
from perfnb.config.as_config import as_config
from perfnb.diagnose import diagnose
from perfnb.errors import PerfnbError
from perfnb.fix import Suggestion
from perfnb.outcomes.calibrate import own_calibration
from perfnb.outcomes.comparable import differences
from perfnb.panels.compare import ComparePanel, Comparison
from perfnb.prediction import Prediction, Unknown
from perfnb.run import Run
from perfnb.text import count
from perfnb.verify import verify
from perfnb.whatif import step_model
from perfnb.wording import run_words


def compare_panel(
    before: Run | Sequence[Run],
    after: Run | Sequence[Run],
    prediction: Suggestion | Prediction | Unknown | None = None,
    *,
    configs: tuple[Any, Any] | None = None,
    paired: bool = False,
) -> ComparePanel:
    """Panel that shows two runs of one training side by side: predicted beside measured, and what changed inside a step.

    Parameters
    ----------
    before, after
        A run on each side, or several; parts, operators and findings are those of the first ones.
    prediction
        The suggestion that was applied, its prediction, or the refusal to make one. By default what perfnb predicts from the
        run before for what differs between the configs: a prediction that did not look at the run after.
    configs
        Config before and after, any homes of one; the runs' own by default.
    paired
        Whether runs were interleaved; see `perfnb.verify`.

    Returns
    -------
    ComparePanel
        Shows itself at the end of a cell; `.outcome` is what `perfnb.verify` says.

    Raises
    ------
    NoStepsError
        If a run has no step boundaries.

    Examples
    --------
    >>> import json, perfnb
    >>> from pathlib import Path
    >>> folders = [Path("data/samples/slow_loader"), Path("data/samples/slow_loader/after")]
    >>> runs = [perfnb.read_trace(folder) for folder in folders]
    >>> configs = tuple(json.loads((folder / "config.json").read_text()) for folder in folders)
    >>> compare_panel(*runs, configs=configs).outcome.speedup > 1.5
    True
    """
    first, second = (side if isinstance(side, Run) else next(iter(side)) for side in (before, after))
    homes = None if configs is None else (as_config(configs[0]), as_config(configs[1]))
    told: tuple[Mapping[str, Any], Mapping[str, Any]] = homes or (first.config, second.config)
    given = _predicted(first, told) if prediction is None else prediction
    outcome = verify(given, before, after, configs=homes, paired=paired)
    return ComparePanel(
        outcome=outcome,
        before=diagnose(first),
        after=diagnose(second),
        titles=(_title(before, first), _title(after, second)),
        comparisons={
            "parts of a step": _compared(compare_parts, first, second),
            "operators": _compared(compare_operators, first, second),
            "kernels": _compared(compare_kernels, first, second),
        },
    )


def _predicted(run: Run, configs: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Prediction | Unknown:
    changes = differences(*configs)
    if not changes:
        return Unknown("the configs of the runs do not differ, or are not known", "configs=(before, after), or the prediction")
    try:
        return step_model.predict(run, changes, configs[0], calibration=own_calibration())
    except PerfnbError as error:
        return Unknown(str(error), "a prediction made from the run before")


def _compared(compare: Callable[[Run, Run], pd.DataFrame], before: Run, after: Run) -> Comparison:
    try:
        changes = compare(before, after)
    except PerfnbError as error:
        return Comparison(reason=str(error))
    return Comparison(changes[changes["difference_us"].ne(0)].reset_index(drop=True))


def _title(side: Run | Sequence[Run], first: Run) -> str:
    more = "" if isinstance(side, Run) or len(side) == 1 else f", and {count(len(side) - 1, 'more run')}"
    return run_words(repr(first)) + more
