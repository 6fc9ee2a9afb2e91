"""Checks of the core functions on recorded samples of a known truth, and on small tables made here."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Final

import perfnb
from perfnb.apply import apply, undo
from perfnb.config.json_file import read_config
from perfnb.errors import NoLibraryError
from perfnb.prediction import Change, Prediction
from perfnb.validate.check import NotAsExpected, NotTested, Planned
from perfnb.validate.samples import run_of_sample, sample
from perfnb.verify import verify

GROUP: Final = "functions on samples"

TRUTH: Final = {"slow_loader": ("data_stall", 0.56), "slow_rank": ("slow_rank", 0.27)}
"""Sample to its bottleneck and the share of step time that was measured without a profiler (data/samples/README.md)."""

_TOLERANCE: Final = 0.05
_LEDGER_TOLERANCE_US: Final = 1.0
_CONFIGS: Final = {
    "a.json": '{\n  "num_workers": 0,\n  "lr": 0.1\n}\n',
    "a.yaml": "num_workers: 0  # none yet\nlr: 0.1\n",
    "a.toml": "num_workers = 0 # none yet\nlr = 0.1\n",
}
_CHANGE: Final = Change("num_workers", 0, 4)


def planned() -> list[Planned]:
    """The checks, in the order in which one rests on the other."""
    return [
        Planned(GROUP, "a trace is read", _reading),
        Planned(GROUP, "parts of the ledger sum to the step", _ledger),
        *(Planned(GROUP, f"the fault of {name} is found", lambda name=name: _finding(name)) for name in TRUTH),  # type: ignore[misc]
        Planned(GROUP, "a change is suggested and predicted", _suggesting),
        Planned(GROUP, "a recorded pair went as predicted", _recorded_pair),
        Planned(GROUP, "rows of metrics are read and judged", _metrics),
        Planned(GROUP, "a loss that is no number is seen", _curve),
        *(Planned(GROUP, f"{name}: apply and undo give the same bytes", lambda name=name: _config(name)) for name in _CONFIGS),  # type: ignore[misc]
        Planned(GROUP, "a report is written", _report),
    ]


def _reading() -> str:
    run = run_of_sample("slow_loader")
    _expect(len(run.steps) > 0 and len(run.host_ops) > 0, f"{len(run.steps)} steps, {len(run.host_ops)} host events")
    return repr(run)


def _ledger() -> str:
    run = run_of_sample("slow_loader")
    ledger = perfnb.step_ledger(run)
    keys = ["rank", "step"]
    parts = ledger.groupby(keys)["time_us"].sum()
    steps = run.steps.set_index(keys)["duration_us"].reindex(parts.index)
    worst = float((parts - steps).abs().max())
    _expect(worst <= _LEDGER_TOLERANCE_US, f"off by {worst:.3f} us")
    return f"{len(parts)} steps, off by {worst:.3g} us at most"


def _finding(name: str) -> str:
    detector, share = TRUTH[name]
    found = perfnb.diagnose(run_of_sample(name)).found
    first = found[0] if found else None
    _expect(first is not None and first.detector == detector, f"found {first.detector if first else 'nothing'}, not {detector}")
    severity = first.severity if first else math.nan
    _expect(abs(severity - share) <= _TOLERANCE, f"{detector} is {severity:.2f} of the step, measured {share:.2f}")
    return f"{detector}: {severity:.2f} of the step, measured without a profiler {share:.2f}"


def _suggesting() -> str:
    config = read_config(sample("slow_loader") / "config.json")
    made = [each for each in perfnb.suggest(run_of_sample("slow_loader"), config) if isinstance(each.prediction, Prediction)]
    _expect(bool(made), "no change with a prediction")
    return f"{made[0].fix}: {made[0].prediction.speedup:.2f}x predicted" if isinstance(made[0].prediction, Prediction) else ""


def _recorded_pair() -> str:
    folder = sample("slow_loader")
    before, after = read_config(folder / "config.json"), read_config(folder / "after" / "config.json")
    changes = {knob: value for knob, value in after.items() if before.get(knob) != value}
    run = run_of_sample("slow_loader")
    predicted = perfnb.predict(run, changes, before)
    if not isinstance(predicted, Prediction):
        raise NotAsExpected(f"no prediction: {predicted.reason}", predicted.needs)  # noqa: EM102 - two texts
    outcome = verify(predicted, run, perfnb.read_trace(folder / "after"), configs=(before, after))
    _expect(outcome.inside is True, outcome.verdict)
    return outcome.verdict


def _metrics() -> str:
    run = perfnb.read_metrics({"step": list(range(40)), "step_time_ms": [50.0] * 40, "data_loading_time_ms": [30.0] * 40})
    found = perfnb.diagnose(run).found
    _expect(bool(found) and found[0].detector == "data_stall", f"found {[each.detector for each in found]}")
    _expect(abs(found[0].severity - 0.6) < 1e-6, f"severity {found[0].severity:.3f}, not 0.600")  # noqa: PLR2004 - 30 of 50
    return found[0].summary


def _curve() -> str:
    run = perfnb.read_metrics([{"step": step, "loss": 2.0 if step < 30 else math.nan} for step in range(60)])  # noqa: PLR2004 - half
    told = perfnb.diagnose(run).training
    names = [each.detector for each in told.found] if told else []
    _expect("non_finite_loss" in names, f"found {names}")
    return "non_finite_loss"


def _config(name: str) -> str:
    with tempfile.TemporaryDirectory(prefix="perfnb-validate-") as folder:
        file = Path(folder) / name
        file.write_text(_CONFIGS[name], encoding="utf-8")
        old = file.read_bytes()
        try:
            apply(_CHANGE, file)
        except NoLibraryError as error:
            reason = f"{error.library} is not installed"
            raise NotTested(reason, f"pip install 'perfnb[{error.extra}]'") from error
        _expect(b"4" in file.read_bytes(), "the change is not in the file")
        undo(_CHANGE, file)
        _expect(file.read_bytes() == old, "the bytes differ after undo")
    return f"{len(old)} bytes"


def _report() -> str:
    from perfnb.report_file import report  # noqa: PLC0415 - imports the library of charts, which may be what is broken

    with tempfile.TemporaryDirectory(prefix="perfnb-validate-") as folder:
        page = report(run_of_sample("slow_loader"), sample("slow_loader") / "config.json", Path(folder) / "report.html")
        shown = page.read_text(encoding="utf-8")
        data = report(run_of_sample("slow_loader"), path=Path(folder) / "report.json")
        schema = json.loads(data.read_text(encoding="utf-8"))["schema"]
    _expect("<script" not in shown and "default-src" in shown, "the page holds a script or no policy")
    return f"{len(shown.encode()) / 1000:.0f} kB without script, JSON of schema {schema}"


def _expect(holds: bool, found: str) -> None:  # noqa: FBT001 - an assertion that stays with python -O
    if not holds:
        raise NotAsExpected(
            found, "a defect of perfnb or of this installation: install it anew, and report this line if it stays"
        )
