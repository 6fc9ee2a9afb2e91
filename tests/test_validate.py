"""perfnb checks itself: what passes, fails or cannot be tested is said, counted and advised on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from perfnb.__main__ import main
from perfnb.catalogue import detectors, training_detectors
from perfnb.detector import DetectorExample
from perfnb.fix import Suggestion
from perfnb.prediction import Change, Unknown
from perfnb.training.examples import curve_example
from perfnb.validate import Check, Validation, examples, functions, live, parts, samples, speed, validation
from perfnb.validate.check import NotAsExpected, NotTested, Planned, made


def raising(error: Exception) -> Planned:
    def look() -> str:
        raise error

    return Planned("group", "check", look)


def names(planned: list[Planned]) -> dict[str, Planned]:
    return {each.name: each for each in planned}


def seen(planned: Planned) -> str:
    """What a check saw; it has to pass."""
    check = made(planned)
    assert (check.state, check.advice) == ("passed", ""), check
    return check.detail


MIXED = Validation(
    "quick",
    (
        Check("one", "good", "passed", "all well", "", 1.0),
        Check("one", "absent", "skipped", "not installed", "pip install it"),
        Check("two", "bad", "failed", "<b>was</b> 3, not 4", "report it"),
    ),
    seconds=12.0,
)


@pytest.mark.parametrize(
    ("error", "state", "detail", "advice"),
    [
        (NotTested("no torch", "install it"), "skipped", "no torch", "install it"),
        (NotAsExpected("3, not 4", "report it"), "failed", "3, not 4", "report it"),
        (KeyError("x"), "failed", "KeyError: 'x'", "a defect of perfnb"),
    ],
)
def test_what_a_check_raises_is_an_answer(error: Exception, state: str, detail: str, advice: str) -> None:
    check = made(raising(error))

    assert (check.state, check.detail) == (state, detail)
    assert check.advice.startswith(advice)
    assert str(error) in detail


def test_the_success_rate_counts_what_could_be_tried_and_the_exit_code_says_a_failure() -> None:
    assert (MIXED.success_rate, MIXED.exit_code) == (0.5, 1)
    assert MIXED.advice == ("bad: report it", "absent: pip install it")
    skipped = Validation("full", MIXED.checks[1:2], 1.0)
    assert (skipped.success_rate, skipped.exit_code) == (None, 0)


def test_the_text_says_every_check_with_its_reason() -> None:
    shown = str(MIXED)

    assert shown.startswith("perfnb  [x] 1 passed, 1 failed, 1 skipped; success rate 50 %    quick, 12 s")
    assert "FAILED  bad" in shown
    assert "skipped  absent" in shown
    assert "&lt;b&gt;was&lt;/b&gt;" in MIXED.bundle().html
    assert MIXED.as_dict()["checks"][2]["state"] == "failed"


@pytest.mark.parametrize("ending", ["html", "md", "json"])
def test_the_command_writes_a_file_and_its_exit_code_says_what_came(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("perfnb.validate.validate", {"quick": MIXED}.__getitem__)

    code = main(["validate", "-o", str(tmp_path / f"v.{ending}")])

    written = (tmp_path / f"v.{ending}").read_text(encoding="utf-8")
    assert code == 1
    assert "report it" in written
    assert f"wrote {tmp_path}" in capsys.readouterr().out
    assert ending != "json" or json.loads(written)["success_rate"] == 0.5


def test_the_command_prints_one_json_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    fine = Validation("full", MIXED.checks[:1], 1.0)
    monkeypatch.setattr("perfnb.validate.validate", lambda mode: asked.append(mode) or fine)

    assert main(["validate", "--full", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["passed"] == 1
    assert asked == ["full"]


@pytest.mark.parametrize(("name", "why"), [("v.pdf", "does not say what to write"), ("no/v.html", "there is no folder")])
def test_where_a_file_cannot_go_is_said_before_any_check(
    name: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "-o", str(tmp_path / name)]) == 2
    assert why in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("perfnb.validate.validate", {"quick": MIXED}.__getitem__)
    (tmp_path / "v.json").mkdir()

    assert main(["validate", "-o", str(tmp_path / "v.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_functions_pass_on_the_samples() -> None:
    details = {name: seen(each) for name, each in names(functions.planned()).items() if "yaml" not in name and "toml" not in name}

    assert details["the fault of slow_loader is found"].startswith("data_stall: 0.5")
    assert details["a recorded pair went as predicted"].endswith("inside the interval")
    assert details["a report is written"].endswith("JSON of schema 1")


@pytest.mark.parametrize(("name", "library"), [("a.yaml", "ruamel.yaml"), ("a.toml", "tomlkit")])
def test_a_config_needs_its_library(name: str, library: str) -> None:
    check = made(names(functions.planned())[f"{name}: apply and undo give the same bytes"])

    there = importlib.util.find_spec(library.partition(".")[0]) is not None
    assert check.state == ("passed" if there else "skipped")


def test_a_sample_that_is_not_there_is_skipped() -> None:
    with pytest.raises(NotTested, match="the recorded sample nothing is not part of this installation"):
        samples.sample("nothing")


def test_the_fault_that_is_not_the_first_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "TRUTH", {"slow_loader": ("host_sync", 0.5)})

    check = made(names(functions.planned())["the fault of slow_loader is found"])

    assert (check.state, check.detail) == ("failed", "found data_stall, not host_sync")


def test_speed_is_cpu_time_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(names(speed.planned())["reading a trace"]).endswith("events per second")
    monkeypatch.setattr(speed, "SLOWEST_READING_PER_S", 1e12)
    monkeypatch.setattr(speed, "LONGEST_PREVIEW_S", 0.0)

    slow = [made(names(speed.planned())[name]) for name in ("reading a trace", "predicting, as a slider does")]

    assert [each.state for each in slow] == ["failed", "failed"]
    assert "are the least" in slow[0].detail
    assert "are the most" in slow[1].detail


def test_a_library_that_is_missing_fails_where_it_is_needed_and_is_skipped_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    planned = names(parts.planned())
    assert seen(planned["pandas"])[0].isdigit()
    monkeypatch.setattr(importlib.metadata, "version", absent)

    checks = [made(planned[name]) for name in ("pandas", "torch (optional)", "mlflow-skinny (optional)")]

    assert [each.state for each in checks] == ["failed", "skipped", "skipped"]
    assert "without a GPU read environment.md first" in checks[1].advice


def test_what_the_machine_lacks_is_skipped_with_the_remedy() -> None:
    checks = [made(each) for each in parts.planned() if each.group == parts.MACHINE]

    assert {each.state for each in checks} <= {"passed", "skipped"}
    assert {"CPU cores", "control group"} <= {each.name for each in checks}
    assert not {"torch", "pandas", "Chromium"} & {each.name for each in checks}


def test_a_public_name_that_does_not_load_fails_with_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_IMPORT_ALL", "raise ImportError('broken')")

    check = made(names(parts.planned())["every public name loads"])

    assert (check.state, check.detail) == ("failed", "ImportError: broken")


def test_detectors_are_tried_on_their_own_examples() -> None:
    planned = names(examples.planned())
    one = next(each for each in detectors() if each.unit == "memory")

    assert set(planned) == {each.name for each in (*detectors(), *training_detectors())}
    assert [seen(planned[name])[-8:] for name in ("data_stall", one.name, "non_finite_loss")] == ["examples"] * 3


def test_an_example_that_comes_out_otherwise_fails() -> None:
    stall = next(each for each in detectors() if each.name == "data_stall")
    wrong = DetectorExample("wrong", stall.examples[0].make_run, 0.123)
    with pytest.raises(NotAsExpected, match=r"wrong: lost .* worked out by hand 0\.1230"):
        examples._check_loss(stall, wrong)

    loss = next(each for each in training_detectors() if each.name == "non_finite_loss")
    with pytest.raises(NotAsExpected, match="calm: did not fire"):
        examples._check_curve(loss, curve_example("calm", [2.0, 1.0], fires=True))
    examples._check_curve(loss, curve_example("unknown", [2.0], fires=None))


def test_without_torch_what_is_live_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "has_torch", lambda: False)
    trainings = live.Live("full")

    checks = [made(each) for each in trainings.planned()]
    trainings.close()

    assert [(each.state, each.detail) for each in checks] == [("skipped", "torch is not installed")] * 3


def test_a_suggestion_of_another_knob_names_no_workers() -> None:
    nothing = Unknown("", "")
    alone = Suggestion("a", (Change("num_workers", 0, 2),), (), "", nothing)
    more = Suggestion("b", (Change("num_workers", 0, 2), Change("prefetch_factor", None, 2)), (), "", nothing)

    assert (live._workers(alone), live._workers(more)) == (2, None)


def test_every_group_is_tried_and_the_folder_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for module in (parts, functions, speed, examples):
        monkeypatch.setattr(module, "planned", lambda: [Planned("g", "c", lambda: "fine")])
    monkeypatch.setattr(live, "has_torch", lambda: False)

    result = validation.validate("full", told.append)

    assert (result.count("passed"), result.count("skipped"), len(told)) == (4, 3, 7)
    assert result.exit_code == 0


@pytest.mark.torch
def test_a_slow_loader_is_found_here_and_now_and_the_change_is_measured() -> None:
    pytest.importorskip("torch")
    trainings = live.Live("quick")

    checks = [made(each) for each in trainings.planned()]
    trainings.close()

    assert checks[0].state == "passed" or "busy" in checks[0].detail, checks[0]
    assert checks[1].state == "passed" or "busy" in checks[1].advice or "quiet" in checks[1].advice, checks[1]
    assert not trainings._folder.exists()
