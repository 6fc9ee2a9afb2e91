"""perfnb.training_panel: the training panel with perfnb's own functions wired in."""

from __future__ import annotations

from typing import Any

import pandas as pd

from perfnb import text
from perfnb.apply import apply, undo
from perfnb.catalogue import training_detectors
from perfnb.detector import Unmeasured
from perfnb.diagnose import diagnose
from perfnb.findings import Diagnosis
from perfnb.panels.history import Edit
from perfnb.panels.training import Probe, TrainingPanel
from perfnb.run import Run
from perfnb.training.drawing import loss_drawing, training_events
from perfnb.training.suggest import suggest_hyperparameters
from perfnb.wording import run_words


def training_panel(
    run: Run,
    config: Any = None,
    *,
    probe: Probe | None = None,
    on_apply: Edit = apply,
    on_undo: Edit = undo,
    home: str = "",
) -> TrainingPanel:
    """Panel of the training itself: its losses, the symptoms on them, what to try, and a probe that asks the training.

    A curve alone gives reason to try a change and no more, so Apply says that it comes without a probe. Of step time the panel
    says nothing: see `perfnb.bottleneck_panel`.

    Parameters
    ----------
    run
        A run whose table `training` holds losses, of `read_training_log`, `read_run` or `record`.
    config
        The training's config, any home of one as in `perfnb.as_config`, which Apply changes; the run's own by default.
    probe
        Called with factors of the learning rate, gives a `perfnb.training.probe_result.ProbeResult`:
        `lambda factors: perfnb.probe(step, state, factors, 30, batches)`. A button of the panel calls it.
    on_apply, on_undo
        Make a new config from changes and a config.
    home
        What to do with the new config, in a sentence; shown after Apply and Undo.

    Returns
    -------
    TrainingPanel
        Shows itself at the end of a cell; `.config` is the config with what was applied, `.result` the last probe.

    Examples
    --------
    >>> from perfnb.training.examples import curve_run
    >>> panel = training_panel(curve_run([2.0, 1.5, float("nan"), float("nan")], config={"learning_rate": 0.1}))
    >>> panel.finding.detector, str(panel.advice[0].changes[0])
    ('non_finite_loss', 'learning_rate: 0.1 -> 0.01')
    """
    whole = diagnose(run)
    diagnosis = whole.training or Diagnosis((), (), (), ())
    try:
        drawing = loss_drawing(run)
    except Unmeasured:
        drawing = pd.DataFrame(columns=["line", "step", "value"])
    points = text.count(len(run.training), "row") + " of training values"
    return TrainingPanel(
        title=f"{run_words(repr(run))}; {points}",
        diagnosis=diagnosis,
        advice=suggest_hyperparameters(run, config),
        drawing=drawing,
        events=training_events(whole),
        config=run.config if config is None else config,
        how={each.name: (each.doc, each.source) for each in training_detectors()},
        on_apply=on_apply,
        on_undo=on_undo,
        home=home,
        probe=probe,
    )
