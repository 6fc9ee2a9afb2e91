"""What a recorded campaign says of perfnb: predictions scored by transform, detectors, device breakdown, memory, recorded runs.

Each `*_problems` function compares what perfnb answers with what was measured, and gives a sentence per disagreement.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import perfnb
from perfnb.catalogue import detectors
from perfnb.prediction import Prediction

SCORES: Final = "scores.csv"
_NANOSECOND_US: Final = 1e-3
_DEVICE: Final = ("kernel", "gpu_memcpy", "gpu_memset")


class Sample:
    """A sample that `benchmarks.gpu.collect` made, read in place.

    Attributes
    ----------
    folder
        Its folder.
    provenance
        What it says of itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.provenance: dict[str, Any] = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))

    def lines(self, stage: str, *states: str) -> list[dict[str, Any]]:
        """Results of a stage in one of the states ("ok" if none is named)."""
        path = self.folder / f"{stage}.jsonl.gz"
        if not path.exists():
            return []
        read = map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines())
        return [line for line in read if line["state"] in (states or ("ok",))]

    @property
    def expected(self) -> list[dict[str, str]]:
        """What detectors have to find."""
        with (self.folder / "expected.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def traces(self) -> Iterator[Path]:
        """Every trace of a pair."""
        yield from sorted((self.folder / "pairs").glob("*.json.gz"))


def samples(folder: Path) -> list[Sample]:
    """Samples of all cards."""
    return [Sample(each.parent) for each in sorted(folder.glob("gpu_*/provenance.json"))]


@dataclass(frozen=True, slots=True)
class Score:
    """A prediction from the trace of the side before, beside the measured pair; ratios are after over before.

    Attributes
    ----------
    transform, workload
        The pair.
    actual, predicted, low, high
        Measured ratio, and the predicted one with its interval; None where nothing was predicted.
    reason
        Why nothing was predicted.
    """

    transform: str
    workload: str
    actual: float
    predicted: float | None
    low: float | None
    high: float | None
    reason: str

    @property
    def error(self) -> float | None:
        """Predicted over actual step, less one."""
        return None if self.predicted is None else self.predicted / self.actual - 1.0

    @property
    def is_inside(self) -> bool | None:
        """Whether the actual ratio lies in the interval."""
        return None if self.low is None or self.high is None else self.low <= self.actual <= self.high


def scores(sample: Sample) -> list[Score]:
    """Every pair that was measured and whose trace before the change is there."""
    made = []
    for line in sample.lines("pairs"):
        result = line["result"]
        trace = result["traces"]["before"]
        times = result["times"]
        actual = times["after"]["median_wall_us"] / times["before"]["median_wall_us"]
        if not trace["file"]:
            made.append(Score(result["transform"], result["workload"], actual, None, None, None, trace["reason"]))
            continue
        run = _trace(sample.folder / "pairs" / trace["file"])
        answer = perfnb.predict(run, result["changes"], result["before"])
        if isinstance(answer, Prediction):
            ratios = (answer.after / answer.before, answer.low / answer.before, answer.high / answer.before)
            made.append(Score(result["transform"], result["workload"], actual, *ratios, ""))
        else:
            made.append(Score(result["transform"], result["workload"], actual, None, None, None, answer.reason))
    return sorted(made, key=lambda score: (score.transform, score.workload))


def score_rows(scored: Sequence[Score]) -> list[list[str]]:
    """Rows of scores.csv, its head first."""
    rows = [["transform", "workload", "actual", "predicted", "low", "high", "error", "inside", "reason"]]
    for each in scored:
        numbers = (each.actual, each.predicted, each.low, each.high, each.error)
        shown = ["" if number is None else f"{number:.4f}" for number in numbers]
        inside = "" if each.is_inside is None else str(each.is_inside)
        rows.append([each.transform, each.workload, *shown, inside, each.reason])
    return rows


def write_scores(sample: Sample) -> None:
    """Write the scores beside the sample: a number that moves shows in the diff."""
    with (sample.folder / SCORES).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(score_rows(scores(sample)))


def by_transform(scored: Sequence[Score]) -> str:
    """The scores as text: a row per transform."""
    lines = [f"{'transform':22} pairs predicted inside  largest error"]
    for transform in dict.fromkeys(each.transform for each in scored):
        own = [each for each in scored if each.transform == transform]
        errors = [abs(each.error) for each in own if each.error is not None]
        inside = sum(bool(each.is_inside) for each in own)
        largest = f"{max(errors):.1%}" if errors else "-"
        lines.append(f"{transform:22} {len(own):5} {len(errors):9} {inside:6}  {largest}")
    return "\n".join(lines)


def score_problems(sample: Sample) -> list[str]:
    """Where the predictions of today are not those that the sample states."""
    path = sample.folder / SCORES
    if not path.exists():
        return [f"{SCORES} is not there: python -m benchmarks.gpu.collect writes it"]
    with path.open(encoding="utf-8", newline="") as file:
        stated = list(csv.reader(file))
    today = score_rows(scores(sample))
    wrong = [f"stated {','.join(old)}; today {','.join(new)}" for old, new in zip(stated, today, strict=False) if old != new]
    return wrong + ([f"{len(stated)} rows stated, {len(today)} today"] if len(stated) != len(today) else [])


def finding_problems(sample: Sample) -> list[str]:
    """Faults whose detector says something else than was measured, and controls in which anything was found."""
    built = {each.name for each in detectors()}
    problems = []
    for row in sample.expected:
        if row["detector"] not in built:
            continue  # to be found once there is such a detector
        diagnosis = perfnb.diagnose(perfnb.read_run(sample.folder / row["run"]))
        found = {finding.detector: finding.severity for finding in diagnosis.found}
        severity = found.get(row["detector"])
        if severity is None:
            problems.append(f"{row['run']}: {row['detector']} not found, but {', '.join(found) or 'nothing'}")
        elif abs(severity - float(row["severity"])) > float(row["tolerance"]):
            problems.append(f"{row['run']}: {row['detector']} {severity:.3f}, measured {row['severity']} +- {row['tolerance']}")
    for line in sample.lines("faults", "ok", "needs CUDA"):
        if line["result"]["detector"] is None:
            found = perfnb.diagnose(perfnb.read_run(sample.folder / "faults" / line["unit"] / "healthy")).findings["detector"]
            problems += [f"faults/{line['unit']}: {detector} found in a healthy run" for detector in found]
    return problems


def breakdown_problems(sample: Sample) -> list[str]:
    """Traces without device work, and those whose device breakdown is not what a sweep over the file's own events gives."""
    problems = []
    for path in sample.traces():
        table = perfnb.device_breakdown(_trace(path))
        if table.empty:
            problems.append(f"{path.name}: no device work was recorded")
            continue
        window_us, busy_us = swept(path)
        row = table.iloc[0]
        for name, own in (("window_us", window_us), ("busy_us", busy_us), ("idle_us", window_us - busy_us)):
            if abs(row[name] - own) > 2 * _NANOSECOND_US:
                problems.append(f"{path.name}: {name} {row[name]:.3f}, its events give {own:.3f}")
    return problems


def swept(path: Path) -> tuple[float, float]:
    """Window and busy time of the device, from the events alone: microseconds."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    spans = sorted(
        (float(event["ts"]), float(event["ts"]) + float(event["dur"])) for event in events if event.get("cat") in _DEVICE
    )
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return reached - spans[0][0], busy


def memory_problems(sample: Sample) -> list[str]:
    """Peaks that contradict each other, and snapshots whose blocks do not fill their segments."""
    lines = sample.lines("memory")
    problems = [] if lines else ["no configuration was measured"]
    for line in lines:
        result = line["result"]
        wrong = [row for row in result["phases"] if row[2] is None or not row[4] <= row[2] <= row[3]]
        problems += [f"{line['unit']}: step {row[0]}, {row[1]}: held {row[4]}, peaks {row[2]} and {row[3]}" for row in wrong]
        if result.get("snapshot"):
            path = sample.folder / "memory" / result["snapshot"]["file"]
            problems += snapshot_problems(json.loads(gzip.decompress(path.read_bytes())), line["unit"])
    return problems


def snapshot_problems(snapshot: Mapping[str, Any], name: str) -> list[str]:
    """Where the blocks of a snapshot do not tile its segments, or it holds no event."""
    problems = [] if any(snapshot["events"]) else [f"{name}: the snapshot has no event"]
    for segment in snapshot["segments"]:
        at = segment["address"]
        for address, size, _, _ in segment["blocks"]:
            if address != at:
                problems.append(f"{name}: a block at {address:#x}, where {at:#x} comes next")
            at = address + size
        if at != segment["address"] + segment["total_size"]:
            problems.append(f"{name}: the blocks of the segment at {segment['address']:#x} end at {at:#x}")
    return problems


def recorded_problems(sample: Sample) -> list[str]:
    """What a recorded run on a GPU should hold and does not."""
    problems = []
    for line in sample.lines("overhead"):
        if line["unit"] == "recorded_run":
            run = perfnb.read_run(sample.folder / "overhead" / line["result"]["folder"])
            there = {
                "device time of phases": run.phases["device_us"].notna().any(),
                "rows of the allocator": not run.allocator.empty,
                "GPU samples": run.gpu_samples["utilization_share"].notna().any(),
                "device work in the profiler's window": not run.device_ops.empty,
            }
            problems += [f"the recorded run has no {what}" for what, is_there in there.items() if not is_there]
            return problems
    return ["no run was recorded"]


@lru_cache(maxsize=8)
def _trace(path: Path) -> Any:
    return perfnb.read_trace(path)
