"""The panels with perfnb's own functions wired in: what `perfnb.bottleneck_panel` and `perfnb.whatif_panel` open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfnb.apply import apply, undo
from perfnb.catalogue import detectors, fixes
from perfnb.charts import breakdown_chart, step_timeline_chart
from perfnb.charts.theme import AnyChart
from perfnb.config.as_config import as_config
from perfnb.config.mapping import has_knob, value_of
from perfnb.diagnose import diagnose
from perfnb.facts import breakdown, step_timeline
from perfnb.findings import Diagnosis, Finding
from perfnb.fix import Suggestion
from perfnb.outcomes.calibrate import own_calibration
from perfnb.panels.bottleneck import BottleneckPanel, ChartOf
from perfnb.panels.history import Config, Edit
from perfnb.panels.run_state import state_blocks
from perfnb.panels.whatif import Predict, WhatIfPanel
from perfnb.prediction import Prediction, Unknown
from perfnb.run import Run
from perfnb.suggest import not_applicable, plan, suggest
from perfnb.text import share
from perfnb.whatif import step_model
from perfnb.whatif.plan import PlanStep
from perfnb.wording import changed, run_words


def bottleneck_panel(
    run: Run, config: Any = None, *, on_apply: Edit = apply, on_undo: Edit = undo, home: str = ""
) -> BottleneckPanel:
    """Panel that steps through what was found in a run, with the evidence and the changes that answer it.

    Parameters
    ----------
    run
        The run.
    config
        The training's config, any home of one as in `perfnb.as_config`: Apply makes a new one, and writes a file after its diff
        was shown; the run's own by default.
    on_apply, on_undo
        Make a new config from changes and a config.
    home
        What to do with the new config, in a sentence; shown after Apply and Undo.

    Returns
    -------
    BottleneckPanel
        Shows itself at the end of a cell; `.config` is the config with what was applied, `.snapshot()` the present state.
    """
    given = as_config(run.config if config is None else config)
    diagnosis = diagnose(run)
    answers = {fix.name: fix.answers for fix in fixes()}
    return BottleneckPanel(
        diagnosis,
        suggest(run, given, diagnosis),
        refused=[(item, answers[item.fix]) for item in not_applicable(run, given, diagnosis)],
        config=given,
        chart=_charts(run, diagnosis),
        how={
            each.name: (each.doc, f"A finding from {share(each.threshold(run))} of step time on: {each.source}")
            for each in detectors()
        },
        on_apply=on_apply,
        on_undo=on_undo,
        home=home,
        state=state_blocks(run),
    )


def whatif_panel(
    run: Run,
    config: Any = None,
    *,
    predict: Predict | None = None,
    plan: Callable[[Run, Config, Sequence[Suggestion]], Sequence[PlanStep]] = plan,
    on_apply: Edit = apply,
    on_undo: Edit = undo,
    home: str = "",
) -> WhatIfPanel:
    """Panel with a control per knob, and what the present setting is predicted to do.

    Parameters
    ----------
    run
        The run.
    config
        The config that the run was recorded with, which Apply changes into a new one; the run's own by default.
    predict
        Answers knob to value after, with a number of draws; `perfnb.predict` on this run by default.
    plan
        Which suggestions to apply, in which order.
    on_apply, on_undo
        Make a new config from changes and a config.
    home
        What to do with the new config, in a sentence; shown after Apply and Undo.

    Returns
    -------
    WhatIfPanel
        Shows itself at the end of a cell; `panel.num_workers.value = 4` moves a control, `.config` is the config with what
        was applied, `.snapshot()` the present state.
    """
    given = as_config(run.config if config is None else config)
    diagnosis = diagnose(run)
    suggestions = suggest(run, given, diagnosis)
    first = [change.knob for item in suggestions for change in item.changes]
    knobs = dict.fromkeys([*first, *(knob for knob in step_model.knobs() if has_knob(given, knob))])
    return WhatIfPanel(
        title=run_words(repr(run)),
        knobs={knob: value_of(given, knob) for knob in knobs},
        config=given,
        predict=predict or _predicting(run, given),
        on_apply=on_apply,
        on_undo=on_undo,
        home=home,
        suggested={f"{item.fix}: {changed(item.changes)}": item.changes for item in suggestions},
        parts=diagnosis.parts,
        plan=plan(run, given, suggestions),
        state=state_blocks(run),
    )


def _predicting(run: Run, config: Config) -> Predict:
    calibration = own_calibration()

    def answer(after: Mapping[str, Any], draws: int) -> Prediction | Unknown:
        return step_model.predict(run, after, config, calibration=calibration, draws=draws)

    return answer


def _charts(run: Run, diagnosis: Diagnosis) -> ChartOf:
    """Timeline of the step in which a finding costs most; the parts of a step where no events were recorded."""

    def chart(finding: Finding, rank: int | None) -> AnyChart | None:
        worst = _worst_step(run, finding, rank)
        if worst is not None:
            timeline = step_timeline(run, *worst)
            if len(timeline):
                return step_timeline_chart(timeline, f"Step {worst[1]} of rank {worst[0]}, where this costs most")
        return None if diagnosis.parts.empty else breakdown_chart(breakdown(diagnosis.parts))

    return chart


def _worst_step(run: Run, finding: Finding, rank: int | None) -> tuple[int, int] | None:
    rows = finding.evidence if rank is None else finding.evidence[finding.evidence["rank"].eq(rank)]
    if rows.empty:
        return None
    first = rows.iloc[0]
    if "step" in rows:
        return int(first["rank"]), int(first["step"])
    own = run.steps[run.steps["rank"].eq(first["rank"])]
    inside = own[(own["start_us"] <= first["start_us"]) & (first["start_us"] < own["start_us"] + own["duration_us"])]
    return (int(first["rank"]), int(inside["step"].iloc[0])) if len(inside) else None
