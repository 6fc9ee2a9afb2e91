"""The report: complete in each of its three formats, safe with hostile names, small, and written as one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt

import perfnb
from perfnb.findings import Cleared, Diagnosis, Finding, Hint, NotMeasured
from perfnb.fix import NotApplicable, Suggestion
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.report_content import Reported, shown
from perfnb.report_environment import config_rows, endings, environment, overhead
from perfnb.report_file import LARGEST_PAGE_BYTES, ReportError, html_page, markdown_text, report
from perfnb.report_json import report_json
from perfnb.report_secrets import HIDDEN
from perfnb.run import Machine, Recording, Run
from perfnb.tables import table_from_text
from perfnb.training.examples import curve_run

HOSTILE = "<img src=x onerror=alert(1)>`|[a](javascript:1) http://outside.example </script>\x1b\u202e\ufffe"
HARMLESS = "name"


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


def finding(name: str, **changed: Any) -> Finding:
    values: dict[str, Any] = {
        "detector": name,
        "category": "data",
        "severity": 0.58,
        "low": 0.5,
        "high": 0.6,
        "lost_us": 41_000.0,
        "confidence": 0.5,
        "record": f"no record of {name}",
        "tier": 1,
        "ranks": (0,),
        "steps": (10, 11, 12),
        "evidence": pd.DataFrame({"rank": [0] * 60, "name": [name] * 60, "lost_us": [1000.0] * 60}),
        "summary": f"{name} takes 58 % of each step",
    }
    return Finding(**values | changed)


def told(name: str) -> Reported:
    """A report in which everything that has a name has this one."""
    known = Prediction("step_us", 71_000, 38_000, 31_000, 47_000, "prior", (f"{name} holds",), "loader_queue 1")
    curve = Diagnosis(
        (finding(name, severity=math.nan, low=math.nan, high=math.nan, confidence=math.nan, tier="observed", unit="training"),),
        (),
        (Cleared(name, "training", math.nan, 1.0, f"{name} is quiet"),),
        (NotMeasured(name, "training", f"{name} was not logged"),),
    )
    diagnosis = Diagnosis(
        found=(
            finding(name),
            finding(f"{name}2"),
            finding(f"{name}3", unit="memory", lost_us=math.nan, lost_bytes=2.0**30),
        ),
        possible=(finding(f"{name}4", upper_bound=True),),
        cleared=(Cleared(name, "device idle", 0.01, 0.05, name),),
        unmeasured=(NotMeasured(name, "imbalance", f"the job of {name} has one rank"),),
        step_us=71_000.0,
        low_us=70_000.0,
        high_us=72_000.0,
        steps_used="50 of 60 steps",
        parts=pd.DataFrame(
            {"clock": "host", "part": ["data.wall", name], "time_us": [41_000.0, 30_000.0], "share": [0.58, 0.42]}
        ),
        run_line=f"{name}: 1 rank",
        notes=(f"{name} was left out",),
        hints=(Hint(name, "data", f"{name} is set"),),
        training=curve,
    )
    run = Run(
        machine=Machine(
            devices=(name,), device_memory_bytes=(80 << 30,), links=((name,),), torch_version=name, constants={name: 1.0}
        ),
        source=(name,),
        recordings=(Recording(0, "failed", name, hook_us_per_step=10.0, sampler_cpu_share=0.01),),
        missing={name: name},
    )
    config = {"num_workers": 0, name: {name: name}}
    change = Change("num_workers", 0, 4)
    suggestions = (
        Suggestion(name, (change,), (name,), f"{name} helps", known, 0.9, f"{name} fits"),
        Suggestion(f"{name}2", (Change("clip_norm", None, 1.0),), (name,), name, Unknown(name, name)),
    )
    return Reported(
        run=run,
        config=config,
        diagnosis=diagnosis,
        suggestions=suggestions,
        refused=(NotApplicable(name, f"the config has no {name}"),),
        plan=(),
        hyperparameters=(),
        shown=tuple(shown(each.changes, config) for each in suggestions),
        shown_hyperparameters=(),
    )


def test_a_hostile_name_makes_no_tag_of_its_own_and_no_request() -> None:
    page = html_page(told(HOSTILE))

    assert sorted(tags(page)) == sorted(tags(html_page(told(HARMLESS))))
    assert "<script" not in page
    assert not re.search(r'(?:src|href|action)="(?!data:)', page)
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e\ufffe\ud800-\udfff]", page)


def test_a_hostile_name_makes_no_link_and_no_tag_in_markdown() -> None:
    text, pictures = markdown_text(told(HOSTILE), "report")

    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)

    kinds = {tag for tag, _ in tags(rendered)}
    assert not {"a", "script"} & kinds
    assert re.findall(r'<img src="([^"]*)"', rendered) == list(pictures) == [f"report.chart-{number}.svg" for number in (1, 2, 3)]


def test_every_part_stands_in_every_format() -> None:
    content = told(HARMLESS)
    page, (markdown, _), data = html_page(content), markdown_text(content, "r"), report_json(content)

    for words in ("takes 58 % of each step", "name helps", "name was left out", "the job of name has one rank", "name is set"):
        assert words in page
        assert words in markdown.replace("\\_", "_")
    for heading in ("What was found: time (2)", "What was found: memory (1)", "Possible, not sure (1)", "What to change (2)"):
        assert heading in page
    for heading in ("The training itself", "Checked and not limiting (1)", "Not measured (1)", "Environment", "Cost of watching"):
        assert heading in page
    assert "Unknown: name. Needs: name" in page
    assert "paste into your code" in page
    assert "clip_grad_norm_" in page
    assert data["schema"] == 1
    assert [each["detector"] for each in data["findings"]] == ["name", "name2", "name3"]
    assert (data["findings"][0]["evidence_rows"], len(data["findings"][0]["evidence"])) == (60, 60)
    assert data["suggestions"][0]["prediction"]["assumptions"] == ("name holds",)
    assert data["suggestions"][1]["unknown"] == {"reason": "name", "needs": "name"}
    assert data["training"]["findings"][0]["detector"] == "name"
    assert data["overhead"] == {"rank 0": "hooks 10.0 us per step (calibrated), sampler 1.0 % of one core"}
    assert data["run"]["ended"] == {"rank 0": "failed: name"}


def test_a_page_stays_small_whatever_a_run_holds() -> None:
    content = told("x" * 5_000)
    many = tuple(finding(f"finding{number}") for number in range(12))

    page = html_page(Reported(**_fields(content) | {"diagnosis": _with(content.diagnosis, found=many)}))

    assert len(page.encode()) <= LARGEST_PAGE_BYTES
    assert "finding11" in page


def test_values_that_their_names_call_secret_stay_out() -> None:
    config = {"num_workers": 0, "api_key": "hush", "hub": {"hf_token": "hush"}, "max_tokens": 7}

    rows = dict(config_rows(config))
    diff = "\n".join(shown([Change("num_workers", 0, 4)], config).diff)

    assert (rows["api_key"], rows["hub.hf_token"], rows["max_tokens"]) == (HIDDEN, HIDDEN, "7")
    assert "hush" not in diff
    assert '+  "num_workers": 4' in diff


def test_a_change_that_the_config_no_longer_fits_has_the_reason_in_place_of_a_diff() -> None:
    stale = shown([Change("num_workers", 2, 4)], {"num_workers": 0})

    assert stale.diff == ()
    assert "num_workers is 0, but the change starts from 2" in stale.reason


def test_a_long_diff_is_cut_and_says_so() -> None:
    config = {"num_workers": 0, **{f"k{number}": {"num_workers": 0} for number in range(60)}}
    lines = shown([Change(f"k{number}.num_workers", 0, 1) for number in range(60)], config).diff

    assert len(lines) <= 121
    assert lines == () or lines[-1].startswith("... and ")


def test_what_a_run_does_not_tell_of_its_machine_is_said_to_be_unknown() -> None:
    rows, cost = dict(environment(Run())), dict(overhead(Run()))

    assert {rows[name] for name in ("devices", "torch of the run", "links")} == {"not known: the files do not say"}
    assert rows["ranks read"] == "0, and how many the job has is not known"
    assert cost["recording"].startswith("not measured: perfnb did not record this run")
    assert endings(Run(recordings=(Recording(0, "finished"), Recording(1, "killed")))) == (("rank 1", "killed"),)


def test_the_cost_of_watching_is_a_share_of_the_step() -> None:
    steps = table_from_text("steps", "rank step start_us duration_us is_profiled\n0 0 0 1000 true\n0 1 1000 1000 false")
    run = Run(steps=steps, recordings=(Recording(0, "finished", hook_us_per_step=10.0), Recording(1, "running")))

    assert overhead(run) == (
        ("rank 0", "hooks 10.0 us per step, 1.0 % of the mean step (calibrated)"),
        ("rank 1", "not measured: the recording does not hold it"),
        ("profiler", "1 of 2 steps ran under torch.profiler, which slows what it sees"),
    )


@pytest.fixture(scope="module")
def curve() -> Run:
    return curve_run([2.0, 1.5, float("nan"), float("nan")], config={"learning_rate": 0.1})


def test_the_three_formats_of_a_run_are_written_and_json_has_its_schema(curve: Run, tmp_path: Path) -> None:
    files = [report(curve, path=tmp_path / f"my report.{ending}") for ending in ("html", "md", "json")]

    page, markdown, data = (file.read_text(encoding="utf-8") for file in files)
    assert "learning_rate: 0.1" in page.replace("-&gt;", "->") or "learning_rate 0.1" in page
    assert "The loss was not finite" in page
    assert "![" in markdown
    assert "(my%20report.chart-1.svg)" in markdown
    assert (tmp_path / "my report.chart-1.svg").read_text(encoding="utf-8").startswith("<svg")
    tried = json.loads(data)["training"]["suggestions"]
    assert [(each["fix"], each["changes"][0]["after"]) for each in tried] == [("lower_learning_rate", 0.01)]
    assert tried[0]["unknown"]["needs"] == "a probe"
    assert not list(tmp_path.glob(".perfnb-*"))


@pytest.mark.parametrize(
    ("name", "why"),
    [("report.pdf", "does not say what to write"), ("no/report.html", "there is no folder"), ("report", "end it in .html")],
)
def test_where_a_report_cannot_go_is_said_before_any_work(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ReportError, match=why):
        report(Run(), path=tmp_path / name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.html").mkdir()

    with pytest.raises(ReportError, match="is a folder"):
        report(Run(), path=tmp_path / "a.html")


def test_what_was_made_already_is_not_made_again(tmp_path: Path) -> None:
    made = Diagnosis((finding("mine"),), (), (), ())

    file = report(Run(), {"num_workers": 0}, tmp_path / "a.json", diagnosis=made, suggestions=())

    assert [each["detector"] for each in json.loads(file.read_text(encoding="utf-8"))["findings"]] == ["mine"]


def test_the_public_name_is_the_function() -> None:
    assert perfnb.report is report


def _fields(content: Reported) -> dict[str, Any]:
    return {name: getattr(content, name) for name in Reported.__dataclass_fields__}


def _with(diagnosis: Diagnosis, **changed: Any) -> Diagnosis:
    values: Mapping[str, Any] = {name: getattr(diagnosis, name) for name in Diagnosis.__dataclass_fields__}
    return Diagnosis(**{**values, **changed})
