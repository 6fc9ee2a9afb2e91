"""One pair: the run before is recorded, the prediction written down and hashed, and only then anything runs with the change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.detection.storage import packed_folder, write_whole
from benchmarks.prediction.case import PairCase
from benchmarks.prediction.job import Trial
from benchmarks.prediction.probing import probed
from benchmarks.prediction.trial import Around, idle, link_times, run_trial
from benchmarks.prediction.workloads import WORKLOADS
from perfnb.outcomes import read_ledger, record_outcome, record_prediction
from perfnb.outcomes.step_means import step_durations
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.verify import verify
from perfnb.whatif.step_model import predict, shadow

FORMAT: Final = 1
PREDICTED: Final = ".prediction.json"
RUN_STEPS: Final = 90
"""Of the run before, as a user would have it."""

STEPS: Final = 56
"""Of each block; five and the last are not steady, 50 remain."""

ROUNDS: Final = 3
RANKS_TRACED_STEPS: Final = 3
SIZES: Final = (0.5, 0.75)
"""Of the batch size: runs at further sizes that are made before a change of it is predicted."""

SIZE_STEPS: Final = 30
EPOCH_STEPS: Final = 10
"""Of runs in which the workers' lives are what changes; all others are one epoch."""

DRAWS: Final = 200

_SETTLE_S: Final = 0.5


def measure(case: PairCase, place: Path, out: Path, *, rounds: int = ROUNDS, steps: int = STEPS) -> dict[str, Any]:
    """What is stored of a pair; the prediction lies in `out` before the change is tried.

    Parameters
    ----------
    case
        The pair.
    place
        A folder for what is recorded.
    out
        Where the prediction goes.
    rounds, steps
        Blocks of each side, and steps of a block.
    """
    workload = WORKLOADS[case.workload]
    before = workload.config(case)
    after = {**before, **case.changes}
    changes = [Change(knob, before[knob], value) for knob, value in case.changes.items()]
    quiet = idle(_SETTLE_S)
    several = workload.world_size > 1
    trial = _trial(case, before, RUN_STEPS, traced_steps=RANKS_TRACED_STEPS if several else 0, probes_link=several)
    run, around = run_trial(trial, place / "before")
    found = probed(trial, link_times(place / "before"))
    earlier = _earlier(case, before, place)
    run = replace(found.attach(run), earlier=tuple(earlier.values()))
    answer = predict(run, case.changes, before, metric="step_us", draws=DRAWS)
    said = None if isinstance(answer, Prediction) else shadow(run, case.changes, before, metric="step_us", draws=DRAWS)
    shadow_after = said.after if isinstance(said, Prediction) else None
    ledger = place / "ledger"
    number = record_prediction(
        run, answer, changes, config=before, workload=case.workload, shadow_after=shadow_after, folder=ledger
    )
    line = _written(out / f"{case.id}{PREDICTED}", ledger)
    for path in (place / "before" / "run").glob("rank*/*.gz"):
        path.unlink()  # traces of ranks: 100 kB each, of which a repository would grow
    sides, blocks = _blocks(case, {"before": before, "after": after}, place, rounds, steps)
    outcome = verify(answer, sides["before"], sides["after"], configs=(before, after), paired=True)
    record_outcome(number, outcome, folder=ledger)
    row = read_ledger(ledger, shipped=False).rows.iloc[0]
    return {
        "format": FORMAT,
        "case": case.as_json(),
        "config": before,
        "row": {name: _plain(value) for name, value in row.items()},
        "line": line,
        "needs": answer.needs if isinstance(answer, Unknown) else "",
        "before": packed_folder(place / "before" / "run"),
        "around": _told(around),
        "probes": found.as_json(),
        "earlier": {size: packed_folder(place / f"size{size}" / "run") for size in earlier},
        "blocks": blocks,
        "idle": _told(quiet),
    }


def _trial(case: PairCase, config: Mapping[str, Any], steps: int, **more: Any) -> Trial:
    epoch = EPOCH_STEPS if "persistent_workers" in case.changes else None
    return Trial(case, config, steps, epoch_steps=epoch, **more)


def _earlier(case: PairCase, before: Mapping[str, Any], place: Path) -> dict[str, Run]:
    """Runs at other sizes of the batch, where a change of it is to be predicted: a user has tried them before."""
    if "batch_size" not in case.changes:
        return {}
    sizes = [max(1, round(int(before["batch_size"]) * share)) for share in SIZES]
    return {
        str(size): run_trial(_trial(case, {**before, "batch_size": size}, SIZE_STEPS), place / f"size{size}")[0] for size in sizes
    }


def _blocks(
    case: PairCase, configs: Mapping[str, Mapping[str, Any]], place: Path, rounds: int, steps: int
) -> tuple[dict[str, list[Run]], list[dict[str, Any]]]:
    """Runs of both sides in turn; every second round begins with the other one, so that a drift falls on both."""
    runs: dict[str, list[Run]] = {side: [] for side in configs}
    blocks = []
    for number in range(rounds):
        order = list(configs) if number % 2 == 0 else list(configs)[::-1]
        for side in order:
            began = datetime.now(tz=UTC).isoformat(timespec="milliseconds")
            run, around = run_trial(_trial(case, configs[side], steps), place / "blocks" / side)
            runs[side].append(replace(run, config={}))
            times = np.rint(step_durations(run)).astype(int).tolist()
            blocks.append({"side": side, "began_at": began, "step_us": times, **_told(around)})
    return runs, blocks


def _written(path: Path, ledger: Path) -> dict[str, Any]:
    """The sealed line of the ledger, on the disk beside what will be stored: nothing of the change has run yet."""
    lines = b"".join(each.read_bytes() for each in sorted(ledger.glob("*.jsonl")))
    line: dict[str, Any] = json.loads(lines)
    write_whole(path, lines)
    return line


def _told(around: Around) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(around).items()}


def _plain(value: Any) -> Any:
    """A value of a table as JSON holds it."""
    import pandas as pd  # noqa: PLC0415 - one name of it

    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
