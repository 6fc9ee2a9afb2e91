"""CPU time of `predict` while a slider moves, on a trace of 250,000 events: the first call, and each further setting."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.reading.children import CORPUS
from benchmarks.reading.repeated import events_of, fresh, repeated
from benchmarks.reading.tables import markdown
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.whatif.step_model import predict

FIRST_TARGET_S: Final = 1.0
MOVE_TARGET_S: Final = 0.050
_EVENTS: Final = 250_000
_DRAWS: Final = 10  # of a moving slider
_TRACE: Final = CORPUS / "traces" / "kineto" / "resnet50_pair_A" / "before_num_workers_0"
_CONFIG: Final[Mapping[str, Any]] = {"num_workers": 0, "log_every_n_steps": 1, "batch_size": 32}
_SLIDERS: Final[Mapping[str, Sequence[Any]]] = {
    "num_workers": (1, 2, 3, 4, 6, 8),
    "log_every_n_steps": (2, 5, 10, 20, 50),
    "batch_size": (16, 24, 40, 48, 64),
    "optimizer_implementation": ("fused",),
    "cuda_graphs": (True,),
    "compile": (True,),
}


def main(words: Sequence[str] | None = None) -> int:
    """Print a table with a row per knob; 1 where a target is missed."""
    chosen = _parser().parse_args(words)
    if not chosen.trace.exists():
        print(f"{chosen.trace.name} is not there: name a trace, or the corpus in PERFNB_CORPUS")
        return 1
    one = read_kineto(*sorted(chosen.trace.iterdir())) if chosen.trace.is_dir() else read_kineto(chosen.trace)
    run = repeated(one, max(1, math.ceil(chosen.events / events_of(one))))
    print(f"{chosen.trace.name}: {events_of(run):,} events, {len(run.steps)} steps, {_DRAWS} draws\n")
    rows, missed = [], False
    for knob, values in _SLIDERS.items():
        unseen = fresh(run)
        times = [cost_s(unseen, knob, value) for value in values]
        again = [cost_s(unseen, knob, value)[0] for value in values]
        moves = [spent for spent, _ in times[1:]]
        worst = max([*moves, *again])
        missed |= times[0][0] > FIRST_TARGET_S or worst > MOVE_TARGET_S
        rows.append(
            [
                knob,
                f"{times[0][0]:.3f}",
                f"{statistics.median(moves) * 1e3:.1f}" if moves else "",
                f"{max(again) * 1e3:.1f}",
                "met" if times[0][0] <= FIRST_TARGET_S and worst <= MOVE_TARGET_S else "NOT MET",
                next((answer.reason[:60] for _, answer in times if isinstance(answer, Unknown)), ""),
            ]
        )
    head = ["knob", "first call, CPU s", "new value, median ms", "value seen before, worst ms", "<= 1 s, <= 50 ms", "refused"]
    print(markdown(head, rows))
    return int(missed)


def cost_s(run: Run, knob: str, value: Any) -> tuple[float, Prediction | Unknown]:
    """CPU seconds of one prediction, and what it was."""
    before = _CONFIG.get(knob, False if value is True else "loop")
    start = time.process_time()
    answer = predict(run, [Change(knob, before, value)], _CONFIG, draws=_DRAWS)
    return time.process_time() - start, answer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preview_cost", description=__doc__)
    parser.add_argument("trace", nargs="?", type=Path, default=_TRACE, help="a file, or a folder of one rank's files")
    parser.add_argument("--events", type=int, default=_EVENTS, help="at least so many, by repeating the steps")
    return parser


if __name__ == "__main__":
    sys.exit(main())
