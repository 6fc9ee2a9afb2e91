"""Evidence of a loss that swings from evaluation to evaluation: shown, never a finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import curve_of, evidence
from perfnb.training.examples import curve_example, decay
from perfnb.training.statistics import log_loss, neighbour_correlation, without_trend

_FEWEST: Final = 30
_BELOW: Final = -0.3
_SWING = decay(40, noise=0.0) * (1.0 + 0.1 * (-1.0) ** np.arange(40))


@detector(
    family="training",
    unit="training",
    title="The loss swings",
    injected_by="nothing yet: near-best DeepOBS runs show it as rarely as those whose rate is too high",
    source="training.md 3: near-best 2 % of 144 runs below -0.3, too high 0 % of 176: it has shown no power, so it never fires",
    not_to_confuse_with=(),
    flag_above=_BELOW,
    recorded_only_when="a labelled run shows that it tells anything",
    examples=(
        curve_example("from one evaluation to the next, two ranks", decay(40), fires=False, ranks=2, validation_loss=_SWING),
        curve_example("no swing", decay(40), fires=False, validation_loss=decay(40)),
        curve_example("twenty-nine evaluations", decay(29), fires=None, validation_loss=_SWING[:29]),
        curve_example("a validation loss that stays the same", decay(40), fires=False, validation_loss=np.ones(40)),
        curve_example("never evaluated", decay(40), fires=None),
    ),
)
def loss_oscillation(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Correlation of each validation loss with the next one, about their trend: below zero they swing.

    It matters because steps that are too long throw the loss from side to side; yet on labelled curves it has told nothing, so
    that it stands here as a number and is never a finding. It cannot be taken from losses of single batches, whose noise hides
    any swing: evaluations only.
    """
    curve = curve_of(training, config)
    places = np.flatnonzero(np.isfinite(curve.validation_losses))
    if len(places) < _FEWEST:
        message = f"{_FEWEST} evaluations are needed, here are {len(places)}"
        raise Unmeasured(message)
    swing = neighbour_correlation(without_trend(log_loss(curve.validation_losses[places])))
    words = (
        f"Neighbouring validation losses correlate by {swing:.2f} about their trend"
        f"{' (below -0.3: they swing; no measured meaning)' if swing < _BELOW else ''}"
    )
    return evidence(curve, places[-1:], swing, _BELOW, fires=False, symptom=words)
