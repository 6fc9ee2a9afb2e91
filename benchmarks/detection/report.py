"""The score of a folder of stored cases: what detectors say of each, a table in words, and files of it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.detection import controls, storage
from benchmarks.detection.case import Case, Fault, Found, Row
from benchmarks.detection.run import KINDS, commit, module_of, run
from benchmarks.detection.score import Said, Score, Share, counts, grouped, judged, median_and_p90, score
from benchmarks.reading.tables import markdown
from perfnb import track_record
from perfnb.diagnose import diagnose

QUICK_FAULTS: Final = ("slow_item", "heavy_transform", "python_logging")
QUICK_CONTROLS: Final = ("quiet", "evaluation", "beside_busy")
_QUICK_DOSE: Final = 0.8
_OF_ALL: Final = ("worker_handover", "gradient_exchange")
"""Faults to which nothing is added: where they are one, all cases of the same training have them."""

_HEAD: Final = (
    "precision",
    "recall",
    "abstentions as misses",
    "cause first",
    "size error",
    "lost time error",
    "interval holds",
    "not measured",
    "controls alarmed",
    "reliability error",
)


@dataclass(frozen=True, slots=True)
class Scored:
    """All of a folder: rows, what they are worth, cases that did not run."""

    rows: tuple[Row, ...]
    said: tuple[Said, ...]
    failed: tuple[tuple[Case, str], ...]
    faults: dict[str, Fault]

    @property
    def controls(self) -> list[Case]:
        """Certified controls."""
        return [row.case for row in self.rows if row.certified is not None and row.certified["is_certified"]]


def row_of(stored: storage.Stored) -> Row:
    """What the detectors say of a stored case."""
    told = diagnose(stored.run)
    found = tuple(
        Found(each.detector, each.severity, each.low, each.high, each.lost_us, each.confidence, each.tier, each.unit)
        for each in told.found
    )
    unmeasured = {each.detector: each.reason for each in told.unmeasured} | {each.detector: each.sentence for each in told.hints}
    return Row(
        stored.case,
        stored.measured.truths,
        found,
        unmeasured,
        tuple(each.detector for each in told.possible),
        stored.measured.certified,
        stored.measured.seen,
    )


def scored(folder: Path) -> Scored:
    """Diagnose and judge all cases of a folder, in the order of their names."""
    modules = [module for kind in KINDS if (module := module_of(kind)) is not None and hasattr(module, "FAULTS")]
    faults = {fault.id: fault for module in modules for fault in module.FAULTS}
    paths = sorted(folder.glob(f"*{storage.SUFFIX}"))
    with track_record.counting({}):
        rows = tuple(row_of(storage.read(path)) for path in paths)
    failed = []
    for path in sorted(folder.glob(f"*{storage.FAILED}")):
        told = json.loads(path.read_text(encoding="utf-8"))
        failed.append((Case.from_json(told["case"]), told["reason"]))
    rows = tuple(_with_record_of_others(rows, faults))
    return Scored(rows, _judged(rows, faults), tuple(failed), faults)


def _judged(rows: Sequence[Row], faults: Mapping[str, Fault]) -> tuple[Said, ...]:
    accepted = {name: control.accepted for name, control in controls.BY_ID.items()}
    counted = [row for row in rows if row.certified is None or row.certified["is_certified"]]
    labels = [(row.case, truth) for row in rows for truth in row.truths if truth.fault in _OF_ALL]
    ambient = {(case.workload, case.setting): faults[truth.fault].expects for case, truth in labels if truth.label != "negative"}
    return tuple(each for row in counted for each in judged(row, faults, accepted, ambient))


def _with_record_of_others(rows: Sequence[Row], faults: Mapping[str, Fault]) -> Iterator[Row]:
    """Rows whose confidences rest on the held-out runs of other workloads alone, so that none is judged by its own record.

    Without any record a confidence is half the probability that the loss is above its threshold, under every cap.
    """
    said = [each for each in _judged(rows, faults) if each.case.split == "held_out"]
    for row in rows:
        with track_record.counting(counts([each for each in said if each.case.workload != row.case.workload])):
            yield replace(row, found=tuple(replace(each, confidence=_with_record(each)) for each in row.found))


def _with_record(found: Found) -> float:
    return track_record.confidence(found.confidence / track_record.Record(0, 0).probability, found.detector, found.tier)


def score_folder(folder: Path, out: Path | None, *, track_record: bool = False) -> int:
    """Print the score of a folder, and write score.json and cases.csv where a folder for them is given."""
    whole = scored(folder)
    if not whole.rows:
        print(f"{folder} holds no stored case: run python -m benchmarks.detection run --set development --out {folder}")
        return 1
    print(table(whole))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        storage.write_whole(out / "score.json", (json.dumps(as_json(whole), indent=1) + "\n").encode())
        storage.write_whole(out / "cases.csv", cases_csv(whole).encode())
    if track_record:
        write_track_record(whole)
    return 0


def table(whole: Scored) -> str:
    """Scores pooled, by split, dose, host and detector, and what did not run, as Markdown."""
    parts = []
    for title, groups in _groups(whole).items():
        rows = [[name, *_cells(value)] for name, value in groups.items()]
        parts.append(markdown([title, *_HEAD], rows))
    uncertified = [row.case.id for row in whole.rows if row.certified is not None and not row.certified["is_certified"]]
    parts.append(f"{len(whole.rows)} cases; controls that are not certified and not counted: {', '.join(uncertified) or 'none'}")
    between = [f"{each.case.id} ({each.truth:.1%})" for each in whole.said if each.outcome == "between" and each.found is None]
    parts.append(f"true share between the bounds, not scored: {', '.join(between) or 'none'}")
    unseen = score(whole.said, whole.faults).unseen
    parts.append(f"causes that the tables cannot show: {unseen.of}, of which {unseen.hits} are said to be not measured")
    parts += [f"did not run: {case.id}: {reason}" for case, reason in whole.failed]
    return "\n\n".join(parts)


def _groups(whole: Scored) -> dict[str, dict[str, Score]]:
    """Title to groups to scores."""
    shown = {
        "all": {"all": list(whole.said)},
        "split": grouped(whole.said, lambda each: each.case.split),
        "job": grouped(whole.said, lambda each: each.case.job),
        "dose": grouped([each for each in whole.said if each.case.faults], lambda each: str(each.case.dose)),
        "host": grouped(whole.said, lambda each: each.case.host),
        "fault": grouped([each for each in whole.said if each.case.faults], lambda each: each.fault),
        "detector": grouped(whole.said, lambda each: each.detector),
    }
    everywhere = {"all", "split", "job", "host"}
    made: dict[str, dict[str, Score]] = {}
    for title, groups in shown.items():
        names = sorted({*groups, *(_place(title, case) for case in whole.controls)}) if title in everywhere else list(groups)
        made[title] = {
            name: score(
                groups.get(name, []),
                whole.faults,
                [c for c in whole.controls if title in everywhere and _place(title, c) == name],
            )
            for name in names
        }
    return made


def _place(title: str, case: Case) -> str:
    return {"all": "all", "split": case.split, "job": case.job, "host": case.host}[title]


def _cells(value: Score) -> list[str]:
    error, of = value.reliability
    return [
        *(_share(each) for each in (value.precision, value.recall, value.recall_of_all, value.first)),
        *(_errors(each) for each in (value.size_errors, value.time_errors)),
        *(_share(each) for each in (value.coverage, value.unmeasured, value.alarms)),
        f"{error:.3f} ({of})" if of else "-",
    ]


def _errors(errors: Sequence[float]) -> str:
    median, p90 = median_and_p90(errors)
    return f"{median:.1%}, p90 {p90:.1%} ({len(errors)})" if errors else "-"


def _share(share: Share) -> str:
    return f"{share.value:.3f} ({share.low:.2f}-{share.high:.2f}; {share.hits} of {share.of})" if share.of else "-"


def as_json(whole: Scored) -> dict[str, Any]:
    """All scores, with counts and intervals; NaN as null."""
    return {
        "commit": commit(),
        "cases": len(whole.rows),
        "certified_controls": len(whole.controls),
        "did_not_run": {case.id: reason for case, reason in whole.failed},
        "scores": {title: {name: _score_json(each) for name, each in groups.items()} for title, groups in _groups(whole).items()},
    }


def _score_json(value: Score) -> dict[str, Any]:
    shares = ("precision", "recall", "recall_of_all", "first", "coverage", "unmeasured", "unseen", "alarms")
    told: dict[str, Any] = {
        name: {"value": _number(each.value), "low": each.low, "high": each.high, "hits": each.hits, "of": each.of}
        for name in shares
        for each in (getattr(value, name),)
    }
    error, of = value.reliability
    for name, errors in (("size_error", value.size_errors), ("time_error", value.time_errors)):
        median, p90 = median_and_p90(errors)
        told[name] = {"median": _number(median), "p90": _number(p90), "of": len(errors)}
    return told | {"reliability": {"error": _number(error), "of": of}}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def cases_csv(whole: Scored) -> str:
    """One row per label and per finding that no label accounts for."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["case", "split", "fault", "detector", "outcome", "is_first", "truth", "severity", "low", "high", "confidence"]
    )
    for each in whole.said:
        found = (
            [f"{getattr(each.found, name):.4f}" for name in ("severity", "low", "high", "confidence")] if each.found else [""] * 4
        )
        truth = "" if math.isnan(each.truth) else f"{each.truth:.4f}"
        writer.writerow(
            [each.case.id, each.case.split, each.fault, each.detector, each.outcome, int(each.is_first), truth, *found]
        )
    return text.getvalue()


def write_track_record(whole: Scored) -> None:
    """Write the counts of held-out cases where perfnb reads them."""
    held_out: Sequence[Said] = [each for each in whole.said if each.case.split == "held_out"]
    told = {
        "provenance": f"benchmarks/detection, {len({each.case.id for each in held_out})} held-out cases, scored at {commit()}",
        "counts": counts(held_out),
    }
    path = Path(track_record.__file__).with_name(track_record.FILE)
    storage.write_whole(path, (json.dumps(told, indent=2) + "\n").encode())


def quick(out: Path, stored: Path, *, lock: Path | None = None) -> int:
    """Three faults at 80 % and three controls of a development workload live, then the score of the stored cases."""
    wanted = [Case("single", "mlp", "alone", "development", (fault,), _QUICK_DOSE) for fault in QUICK_FAULTS] + [
        case
        for case in controls.cases("development")
        if case.workload == "mlp" and case.seed == 1 and case.setting == "alone" and case.control in QUICK_CONTROLS
    ]
    done = run(wanted, out, lock=lock)
    print(table(scored(out)))
    if any(stored.glob(f"*{storage.SUFFIX}")):
        print(table(scored(stored)))
    return int(done < len(wanted))
