"""Cards and faces: what people read first, in every state, with hostile names and without a renderer."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt

import perfnb
from perfnb.document import Bundle, bundle
from perfnb.findings import Cleared, Diagnosis, Finding, NotMeasured
from perfnb.fix import Suggestion
from perfnb.prediction import Change, MemoryPart, Prediction, Unknown
from perfnb.report import card, face, page
from perfnb.run import Run
from perfnb.verify import Outcome

LARGEST_CARD = 25_000
HOSTILE = "<img src=x onerror=alert(1)>`|[a](javascript:1) http://outside.example </script>\x1b\u202e\ufffe"


def finding(name: str = "data_stall", severity: float = 0.58, **changed: Any) -> Finding:
    values: dict[str, Any] = {
        "detector": name,
        "category": "data",
        "severity": severity,
        "low": severity - 0.05,
        "high": severity + 0.05,
        "lost_us": 71_000 * severity,
        "confidence": 0.5,
        "record": "no record yet",
        "tier": 1,
        "ranks": (0,),
        "steps": (10, 11, 12),
        "evidence": pd.DataFrame({"rank": [0, 0], "step": [10, 11], "name": [name, name], "lost_us": [41_000.0, 40_000.0]}),
        "summary": f"{name} takes 58 % of each step: 41.2 ms of 71.0 ms",
    }
    return Finding(**values | changed)


def diagnosis(*found: Finding, name: str = "host_sync", **changed: Any) -> Diagnosis:
    values: dict[str, Any] = {
        "found": found,
        "possible": (),
        "cleared": (Cleared(name, "device idle", 0.01, 0.05, f"{name}: 1.0 % of each step"),),
        "unmeasured": (NotMeasured(name, "imbalance", f"the job of {name} has one rank"),),
        "step_us": 71_000.0,
        "low_us": 70_000.0,
        "high_us": 72_000.0,
        "steps_used": "50 of 60 steps",
        "parts": pd.DataFrame(
            {"clock": "host", "part": ["data.wall", name], "time_us": [41_000.0, 30_000.0], "share": [0.58, 0.42]}
        ),
        "run_line": f"{name}: 1 rank",
        "notes": (f"{name} was left out",),
    }
    return Diagnosis(**values | changed)


def suggestion(name: str = "raise_num_workers", prediction: Prediction | Unknown | None = None) -> Suggestion:
    known = Prediction("step_us", 71_000, 38_000, 31_000, 47_000, "prior", (f"{name} holds",), "loader_queue 1")
    return Suggestion(
        name, (Change("num_workers", 0, name),), ("data_stall",), f"{name} helps", prediction or known, 0.9, f"{name} fits"
    )


def outcome(name: str = "num_workers") -> Outcome:
    predicted = Prediction("step_us", 71_000, 38_000, 31_000, 47_000, "prior")
    return Outcome(
        changes=(Change(name, 0, 4),),
        prediction=predicted,
        metric="step_us",
        before=71_000,
        after=40_000,
        after_low=39_000,
        after_high=41_000,
        speedup_low=71 / 41,
        speedup_high=71 / 39,
        steps_before=30,
        steps_after=30,
        paired=False,
        pressure_before=None,
        pressure_after=None,
        inside=True,
        sign_ok=True,
        void="",
        caution="",
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def tags(html: str) -> list[tuple[str, tuple[str, ...]]]:
    parser = _Tags()
    parser.feed(html)
    return parser.found


def values(name: str) -> dict[str, Any]:
    """One of each value that has a face, with a name in every place that a name can reach."""
    run = Run(source=(name,), notes=(name,), config={name: name}, missing={"device_ops": name})
    return {
        "diagnosis": diagnosis(finding(name), finding(name, 0.2), name=name),
        "finding": finding(name),
        "suggestion": suggestion(name),
        "suggestions": (suggestion(name), suggestion(name, Unknown(name, name))),
        "prediction": suggestion(name).prediction,
        "unknown": Unknown(name, name),
        "outcome": outcome(name),
        "run": run,
    }


KINDS = list(values(""))


def test_the_first_line_is_the_worst_finding_with_its_size() -> None:
    lines = card(diagnosis(finding(), finding("launch_overhead", 0.2))).plain.splitlines()

    assert lines[0] == "perfnb  [!] data_stall takes 58 % of each step: 41.2 ms of 71.0 ms    data_stall, tier 1"
    assert "also    launch_overhead 20 % | not limiting 1 | not measured 1" in lines


def test_at_most_three_findings_are_named_and_the_rest_counted() -> None:
    found = [finding(f"cause_{number}", 0.5 - number / 10) for number in range(5)]

    also = next(line for line in card(diagnosis(*found)).plain.splitlines() if line.startswith("also"))

    assert also == "also    cause_1 40 % | cause_2 30 % | more 2 | not limiting 1 | not measured 1"


def test_the_best_change_stands_on_the_card_with_its_interval_and_basis() -> None:
    shown = card(diagnosis(finding()), (suggestion("raise_num_workers"), suggestion("cache_samples"))).plain

    assert "Predicted: 71.0 -> 38.0 ms per step (31.0-47.0 ms, 80 %), 1.87x, basis: prior" in shown
    assert "        - num_workers: 0\n        + num_workers: raise_num_workers" in shown
    assert "Other changes, each predicted alone (1)" in shown


def test_nothing_found_reads_as_looked_at_and_lists_the_numbers_open() -> None:
    shown = card(diagnosis())

    assert shown.plain.startswith("perfnb  [ok] Nothing above its limit: 1 cause looked at, 1 not measured")
    assert "<details open" in shown.html


def test_a_run_without_steps_is_not_judged_and_never_called_fine() -> None:
    nothing = Diagnosis((), (), (), (NotMeasured("data_stall", "data", "no step boundaries: call prof.step()"),))

    shown = card(nothing).plain

    assert shown.startswith("perfnb  [?] Nothing to judge: no step boundaries: call prof.step()")
    assert "[ok]" not in shown


def test_too_few_steps_are_not_judged_and_what_is_possible_is_named() -> None:
    shown = card(diagnosis(possible=(finding(steps=(1, 2)),))).plain

    assert shown.startswith("perfnb  [?] Too short to judge: 2 steps, 3 needed. Possible: data_stall takes 58 %")


def test_a_run_in_which_nothing_could_be_looked_at_is_not_called_fine() -> None:
    assert card(diagnosis(cleared=())).plain.startswith("perfnb  [?] No cause could be looked at")


def test_an_upper_bound_is_called_one() -> None:
    assert "an upper bound" in card(diagnosis(finding(upper_bound=True))).plain


def test_no_word_promises() -> None:
    shown = card(diagnosis(finding()), (suggestion(),)).plain

    assert not re.search(r"\b(will|optimal)\b", shown, re.IGNORECASE)


def test_unknown_shows_its_reason_and_needs_and_no_number() -> None:
    shown = face(Unknown("no worker times were recorded", "a probe of the loader"))

    assert shown.plain == "perfnb  [?] Unknown: no worker times were recorded. Needs: a probe of the loader"
    assert not re.search(r"\d", shown.markdown)


def test_a_change_within_its_noise_is_called_without_effect() -> None:
    shown = face(Prediction("step_us", 71_000, 70_500, 65_000, 76_000, "prior")).plain

    assert shown.startswith("predict no effect expected: 71.0 -> 70.5 ms per step (65.0-76.0 ms, 80 %)")


def test_an_outcome_stands_beside_what_was_predicted() -> None:
    shown = face(outcome()).plain

    assert shown.startswith("outcome predicted 1.87x (1.51x to 2.29x), measured 1.77x (1.73x to 1.82x): inside the interval")
    assert "30 steady steps before, 30 after" in shown


def test_a_certainty_is_never_shown_as_complete() -> None:
    assert "over 99 %" in face(dataclasses.replace(suggestion(), confidence=0.9999)).plain
    assert "under 1.0 %" in face(dataclasses.replace(suggestion(), confidence=0.0)).plain


@pytest.mark.parametrize("kind", KINDS)
def test_no_tag_of_a_hostile_name_survives_in_html(kind: str) -> None:
    assert tags(face(values(HOSTILE)[kind]).html) == tags(face(values("name")[kind]).html)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tag_or_link_of_a_hostile_name_survives_in_markdown(kind: str) -> None:
    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(face(values(HOSTILE)[kind]).markdown)

    assert not {"a", "img", "script"} & {tag for tag, _ in tags(rendered)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_face_is_clean_text_without_script(kind: str) -> None:
    shown = face(values(HOSTILE)[kind])

    for text in (shown.html, shown.markdown, shown.plain):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e\ufffe\ud800-\udfff]", text)
    assert not {"script", "iframe", "style", "svg"} & {tag for tag, _ in tags(shown.html)}
    assert not {name for _, names in tags(shown.html) for name in names if name.startswith("on")}


@pytest.mark.parametrize("kind", KINDS)
def test_without_vl_convert_the_card_is_a_table_and_a_reason(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)

    shown = face(values("name")[kind])

    assert "<img" not in shown.html
    if kind in ("diagnosis", "prediction", "suggestion"):
        assert "vl-convert is not installed" in shown.plain


@pytest.mark.parametrize("sample", ["slow_loader", "slow_rank", "python_logging", "cpu_transform", "healthy"])
def test_the_card_of_a_recorded_run_stays_small(sample: str, repository: Path) -> None:
    folder = repository / "data" / "samples" / sample
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    run = perfnb.read_trace(folder)
    answer = perfnb.diagnose(run)

    shown = card(answer, perfnb.suggest(run, config, answer))

    assert len(shown.html.encode()) <= LARGEST_CARD
    assert "NaN" not in shown.plain


def test_a_page_holds_all_it_needs_and_forbids_the_rest() -> None:
    html = page(card(diagnosis(finding())), "<title>")

    assert "default-src &#39;none&#39;; img-src data:" in html
    assert "<title>&lt;title&gt;</title>" in html
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_a_value_without_a_face_is_answered_with_those_that_have_one() -> None:
    with pytest.raises(TypeError, match="perfnb shows no int: it shows Diagnosis, Finding"):
        face(3)


def test_no_suggestion_says_so() -> None:
    assert face(()).plain.strip() == "no change is suggested"
    assert isinstance(bundle([]), Bundle)


def test_a_prediction_of_memory_is_told_in_bytes_and_has_no_chart_of_times() -> None:
    part = MemoryPart("allocated", 1 << 30, 2 << 30, 1 << 30, 3 << 30, 8 << 30, "B", "a replay")

    shown = face(Prediction("memory_bytes", 1 << 30, 2 << 30, 1 << 30, 3 << 30, "prior", memory=part))

    assert "peak allocated 1.00 GiB -> 2.00 GiB (1.00 GiB to 3.00 GiB, level B, a prior) of 8.00 GiB usable: fits" in shown.plain
    assert "<img" not in shown.html
