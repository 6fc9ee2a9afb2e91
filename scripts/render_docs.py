"""Writes the pages of docs/ that are rendered from the code; with --check only says whether they are as the code gives them."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from perfnb.catalogue import detectors, fixes
from perfnb.detector import Detector
from perfnb.fix import Fix

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
SCORE: Final = DOCS.parent / "data" / "samples" / "detection" / "held_out" / "score.json"
"""What `python -m benchmarks.detection score` made of the stored cases of workloads that no threshold was tuned on."""

_HEAD: Final = "<!-- Rendered by scripts/render_docs.py from the code: edit the files in perfnb/, then run it. -->\n\n"


def detectors_page() -> str:
    """Page on every detector: what it is, when it fires, what proves it."""
    rows = ["| detector | kind | fires from | claims | answered by |", "|---|---|---|---|---|"]
    for each in detectors():
        links = [f"[{fix.name}](fixes.md#{fix.name})" for fix in fixes() if each.name in fix.answers]
        claims = ", ".join(f"`{part}`" for part in each.claims) or ("nothing" if each.unit == "time" else each.unit)
        name = f"[{each.name}](#{each.name})"
        cells = (name, each.family, _threshold(each), claims, ", ".join(links) or "a person")
        rows.append(_row(cells))
    intro = (
        "# Detectors\n\nA finding needs its share of step time at or above the threshold and a low end of its interval (80 %) of "
        "at least 3 %. On the\nhost's clock it is a share of the step's own time, without waiting for a core. What stays below "
        "is listed as not limiting, with its number;\nwhat could not be looked at is listed with the reason; what only the "
        "config tells is a hint.\n\n" + _all_measured()
    )
    return _HEAD + intro + "\n".join(rows) + "\n" + "".join(map(_detector, detectors()))


def fixes_page() -> str:
    """Page on every fix: what it changes, when it applies, what to check first."""
    rows = ["| fix | knobs | answers |", "|---|---|---|"]
    for each in fixes():
        answers = ", ".join(f"[{name}](detectors.md#{name})" for name in each.answers)
        rows.append(f"| [{each.name}](#{each.name}) | {', '.join(f'`{knob}`' for knob in each.knobs)} | {answers} |")
    return _HEAD + "# Fixes\n\n" + "\n".join(rows) + "\n" + "".join(map(_fix, fixes()))


_SHARES: Final = {
    "precision": "precision",
    "recall": "recall",
    "recall_of_all": "recall if what was not measured counts as missed",
    "first": "named first",
}

PAGES: Final[Mapping[str, Callable[[], str]]] = {"detectors.md": detectors_page, "fixes.md": fixes_page}


def main() -> int:
    """Write the pages, or with --check return 1 where one is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is not as the code gives it")
    stale = []
    check = parser.parse_args().check
    for name, page in PAGES.items():
        file = DOCS / name
        if check:
            stale += [] if file.is_file() and file.read_text(encoding="utf-8") == page() else [name]
        else:
            DOCS.mkdir(exist_ok=True)
            file.write_text(page(), encoding="utf-8")
    if stale:
        print(f"not up to date: {', '.join(stale)}; run python scripts/render_docs.py", file=sys.stderr)
    return 1 if stale else 0


def _threshold(each: Detector) -> str:
    host = "" if each.flag_above_on_host is None else f" ({each.flag_above_on_host:.0%} on the host clock)"
    return f"{each.flag_above:.0%}{host}"


def _detector(each: Detector) -> str:
    what = "of the step" if each.unit == "time" else "of the memory"
    cases = "\n".join(f"- {case.title}: {case.lost_share:.0%} {what}" for case in each.examples)
    recorded = f"\n\nNot in the recorded runs of the tests: {each.recorded_only_when}." if each.recorded_only_when else ""
    return (
        f"\n## {each.name}\n\n{each.doc}\n\n**Threshold.** {_threshold(each)}. Source: {each.source}.\n\n"
        f"**Injected by** {each.injected_by}. {_measured(each.name)}\n\n"
        f"**Not to be confused with** {', '.join(each.not_to_confuse_with)}: their examples leave it silent.\n\n"
        f"**Examples** (each is a test):\n\n{cases}{recorded}\n"
    )


def _scores() -> Mapping[str, Mapping[str, Any]]:
    return json.loads(SCORE.read_text(encoding="utf-8"))["scores"] if SCORE.is_file() else {}


def _all_measured() -> str:
    """What the benchmark found over all detectors, together and by kind of job."""
    scores = _scores()
    if not scores:
        return ""
    commit = json.loads(SCORE.read_text(encoding="utf-8"))["commit"]
    rows = [_job_row(f"**{name}**", each) for name, each in scores["all"].items()]
    rows += [_job_row(name, each) for name, each in scores["job"].items()]
    head = ["job", *_SHARES.values(), "median size error", "healthy controls alarmed"]
    return (
        "Measured by `python -m benchmarks.detection score data/samples/detection/held_out` on injected faults in workloads\n"
        f"that no threshold was tuned on, on two CPU cores; nothing is measured on a GPU. {_waiting()}\n\n"
        + "\n".join([_row(head), _row(["---"] * len(head)), *map(_row, rows)])
        + f"\n\nScored by the detectors of commit {commit}. Thresholds were frozen before the held-out cases were recorded.\n"
        "After such cases were seen, evaluations became a phase of their own, waiting under a CPU quota went from the\n"
        "workers to the quota (checked on the development workloads), and what a training with workers or of two ranks has\n"
        "without any fault became a label. That ranks and the threads that exchange for them wait for one of two cores is\n"
        "not judged; ranks were recorded with small batches only.\n\n"
    )


def _waiting() -> str:
    """What trainings with workers wait for their data without a fault, as it was measured."""
    with SCORE.with_name("cases.csv").open(encoding="utf-8", newline="") as file:
        shares = sorted(
            float(row["truth"])
            for row in csv.DictReader(file)
            if row["fault"] == "worker_handover" and row["truth"] and row["outcome"] != "quiet"
        )
    if not shares:
        return ""
    return (
        "With workers the trainings wait\nfor their data without any other fault, "
        f"{shares[0]:.0%} to {shares[-1]:.0%} of a step:\nsaying so in another case is neither right nor wrong, and "
        "another finding counts as the first there."
    )


def _job_row(name: str, score: Mapping[str, Any]) -> list[str]:
    size, alarms = score["size_error"], score["alarms"]
    told = [_counted(score[key]) for key in _SHARES]
    told.append(f"{size['median']:.1%} of {size['of']}" if size["of"] else "-")
    return [name, *told, f"{alarms['hits']} of {alarms['of']}" if alarms["of"] else "-"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _measured(name: str) -> str:
    """What the benchmark found of one detector, in a sentence."""
    own = _scores().get("detector", {}).get(name)
    if own is None or not (own["precision"]["of"] or own["recall"]["of"]):
        return "**Measured:** not by the detection benchmark so far."
    told = [f"{word} {_counted(own[key])}" for key, word in _SHARES.items() if own[key]["of"]]
    size = own["size_error"]
    told += [f"median size error {size['median']:.1%} of {size['of']}"] if size["of"] else []
    return f"**Measured** on held-out workloads: {', '.join(told)}."


def _counted(share: Mapping[str, Any]) -> str:
    return f"{share['value']:.2f} ({share['hits']} of {share['of']})" if share["of"] else "unknown"


def _fix(each: Fix) -> str:
    cases = "\n".join(
        f"- {case.title}: {'applies' if case.after is not None else 'does not apply (' + case.reason + ')'}"
        for case in each.examples
    )
    caution = f"\n\n**Check first.** {each.caution[:1].upper()}{each.caution[1:]}." if each.caution else ""
    why = f"{each.reason[:1].upper()}{each.reason[1:]}"
    return (
        f"\n## {each.name}\n\n{each.doc}\n\n**Why.** {why}. Source: {each.source}.{caution}\n\n"
        f"**Examples** (each is a test):\n\n{cases}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
