"""Fix: clip gradients at what is usual for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from perfnb.config.mapping import value_of
from perfnb.detector import Unmeasured
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.training.curve import Curve, curve_of
from perfnb.training.examples import curve_run, decay
from perfnb.training.spikes import spikes
from perfnb.training.statistics import robust_sigma

_FEWEST: Final = 20
_OF_SPIKES: Final = 0.97  # between the 95th and the 99th percentile
_OF_MISFIT: Final = 0.90
_OUTLIER: Final = 3.0
_MOST: Final = 0.5
_AT = np.arange(600) % 40 == 0
_LOSS = np.where(_AT, 3.0, 1.0) * decay(600)
_CALM = 1.0 + 0.1 * np.random.default_rng(2).random(600)


@fix(
    knobs=("clip_norm",),
    answers=("loss_spikes", "clipping_misfit"),
    reason="a step whose gradient is far above the usual throws the weights away from where they were",
    source="Pascanu et al. (2013), On the difficulty of training recurrent neural networks; the percentiles are a choice",
    caution="not validated on runs of ours: probe it from before a spike, on the same batches",
    examples=(
        FixExample(
            "norms of 50 at the spikes, about 1 elsewhere: clipped where few are",
            {"clip_norm": None},
            {"clip_norm": 1.1},
            make_run=lambda: curve_run(_LOSS, gradient_norm=np.where(_AT, 50.0, np.where(np.arange(600) % 9 == 1, 1.1, 1.0))),
        ),
        FixExample(
            "over half of the steps are clipped: at the 90th percentile",
            {"clip_norm": 0.5},
            {"clip_norm": 9.0},
            make_run=lambda: curve_run(decay(101), gradient_norm=np.arange(101) / 10.0, clip_norm=0.5),
        ),
        FixExample(
            "the norm does not stand out at the spikes",
            {"clip_norm": None},
            None,
            "inspect the batches",
            make_run=lambda: curve_run(_LOSS, gradient_norm=_CALM),
        ),
        FixExample("no norms", {"clip_norm": None}, None, "log gradient_norm", make_run=lambda: curve_run(_LOSS)),
        FixExample(
            "no spikes",
            {"clip_norm": None},
            None,
            "inspect the batches",
            make_run=lambda: curve_run(decay(600), gradient_norm=_CALM),
        ),
        FixExample("nothing recorded", {"clip_norm": 1.0}, None, "log gradient_norm"),
        FixExample("not a number", {"clip_norm": "auto"}, None, "'auto'", make_run=lambda: curve_run(_LOSS, gradient_norm=_CALM)),
    ),
)
def clip_gradients(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Clip at the 90th percentile of the norm where most steps are clipped, else at the 97th where spikes have a larger one."""
    now = value_of(config, "clip_norm")
    if now is not None and (isinstance(now, bool) or not isinstance(now, int | float)):
        return f"clip_norm is {now!r}, not a number"
    curve = None if run.training.empty else curve_of(run.training, run.config)
    if curve is None or int(np.isfinite(curve.gradient_norms).sum()) < _FEWEST:
        return f"{_FEWEST} steps with a gradient norm are needed: log gradient_norm before clipping"
    norms = curve.gradient_norms[np.isfinite(curve.gradient_norms)]
    limits = curve.clip_norms[np.isfinite(curve.gradient_norms)]
    if (norms[np.isfinite(limits)] > limits[np.isfinite(limits)]).sum() > _MOST * len(norms):
        return {"clip_norm": _digits(np.quantile(norms, _OF_MISFIT))}
    if not _norm_stands_out(curve):
        return "the gradient norm does not stand out at most spikes of the loss: inspect the batches of those steps instead"
    return {"clip_norm": _digits(np.quantile(norms, _OF_SPIKES))}


def _norm_stands_out(curve: Curve) -> bool:
    """Whether at or one step before most spikes the norm is above three robust standard deviations (of its logarithm)."""
    try:
        at = spikes(curve).at
    except Unmeasured:
        return False
    norms = curve.gradient_norms
    logs = np.log(np.where(np.isfinite(norms) & (norms > 0), norms, np.nan))
    known = logs[np.isfinite(logs)]
    if not len(at) or not len(known):
        return False
    limit = float(np.median(known)) + _OUTLIER * robust_sigma(known)
    out = np.fmax(logs[at], logs[np.maximum(at - 1, 0)]) > limit
    return bool(out.mean() > _MOST)


def _digits(value: float) -> float:
    return float(f"{value:.3g}")
