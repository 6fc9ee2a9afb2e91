"""`perfnb apply`, `perfnb undo` and `perfnb report`: the diff first, then a word, then the file as one; undone to the byte."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from perfnb.__main__ import main

TEXT = '{\n  "num_workers": 0,\n  "cache_samples": "none"\n}\n'


class Terminal(io.StringIO):
    """Where a user types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text(TEXT, encoding="utf-8")
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_a_change_is_shown_written_and_taken_back_to_the_byte(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(config), "--set", "num_workers=4", "--yes"]) == 0
    shown = said(capsys)
    assert '-  "num_workers": 0,' in shown
    assert "wrote train.json; what it held is in train.json.perfnb-0001-" in shown
    assert json.loads(config.read_text(encoding="utf-8"))["num_workers"] == 4

    assert main(["undo", str(config), "--yes"]) == 0
    assert '-  "num_workers": 4,' in said(capsys)
    assert config.read_text(encoding="utf-8") == TEXT
    assert [each.name for each in config.parent.iterdir()] == ["train.json"]


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("n\n", 1), ("", 1)])
def test_the_user_is_asked_where_there_is_a_terminal(
    config: Path, typed: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))

    assert main(["apply", str(config), "--set", "num_workers=4"]) == code

    assert (config.read_text(encoding="utf-8") == TEXT) == (code == 1)
    assert "Write train.json? [y/N]" in said(capsys)


def test_an_undo_that_is_declined_changes_nothing(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["apply", str(config), "--set", "num_workers=4", "--yes"])
    changed = config.read_bytes()
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))

    assert main(["undo", str(config)]) == 1
    assert config.read_bytes() == changed
    assert "nothing was written" in said(capsys)


@pytest.mark.parametrize("words", [["apply", "--set", "num_workers=4"], ["undo"]])
def test_without_a_terminal_and_without_yes_nothing_is_written(
    config: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "undo":
        main(["apply", str(config), "--set", "num_workers=4", "--yes"])
    held = config.read_bytes()
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))

    assert main([words[0], str(config), *words[1:]]) == 2
    assert config.read_bytes() == held
    assert "pass --yes to write, or --dry-run" in said(capsys)


def test_a_dry_run_shows_the_diff_of_both_and_writes_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(config), "--set", "num_workers=4", "--dry-run"]) == 0
    assert '+  "num_workers": 4,' in said(capsys)
    assert config.read_text(encoding="utf-8") == TEXT

    main(["apply", str(config), "--set", "num_workers=4", "--yes"])
    assert main(["undo", str(config), "--dry-run"]) == 0
    assert '+  "num_workers": 0,' in said(capsys)
    assert json.loads(config.read_text(encoding="utf-8"))["num_workers"] == 4


def test_what_has_no_place_is_printed_as_code_and_nothing_is_written(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(config), "--set", "num_workers=4", "--set", "clip_norm=1.0", "--yes"]) == 2

    shown = said(capsys)
    assert "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)" in shown
    assert "nothing was written" in shown
    assert config.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "nothing to change: say --set KNOB=VALUE"),
        (["raise_num_workers"], "a suggestion of which run? name it: --run PATH"),
        (["--set", "num_workers=0", "--yes"], "holds that already"),
    ],
)
def test_what_asks_for_no_change_is_said_so(config: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["apply", str(config), *words])

    assert why in said(capsys)
    assert config.read_text(encoding="utf-8") == TEXT


def test_nothing_to_take_back_is_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["undo", str(config), "--yes"]) == 2
    assert "nothing to take back" in said(capsys)


def test_a_file_that_was_edited_since_is_not_taken_back(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["apply", str(config), "--set", "num_workers=4", "--yes"])
    config.write_text('{"num_workers": 9}', encoding="utf-8")

    assert main(["undo", str(config), "--yes"]) == 2
    assert "was edited after the last change" in said(capsys)
    assert config.read_text(encoding="utf-8") == '{"num_workers": 9}'


def test_suggestions_of_a_run_are_listed_and_applied_by_name(
    config: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = str(repository / "data" / "samples" / "slow_loader")
    assert main(["apply", str(config), "--run", sample]) == 0
    offered = said(capsys)
    assert "raise_num_workers: num_workers 0 -> " in offered
    assert "Predicted: " in offered

    assert main(["apply", str(config), "no_such_fix", "--run", sample]) == 2
    assert "no_such_fix is no suggestion for this run and config: there are raise_num_workers" in said(capsys)

    assert main(["apply", str(config), "raise_num_workers", "--run", sample, "--yes"]) == 0
    assert json.loads(config.read_text(encoding="utf-8"))["num_workers"] > 0


def test_a_run_without_trouble_offers_nothing(config: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(config), "--run", str(repository / "data" / "samples" / "healthy")]) == 0
    assert "no change of this config is suggested" in said(capsys)


def test_a_report_is_written_with_the_config_beside_the_trace(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = repository / "data" / "samples" / "slow_loader"

    assert main(["report", str(sample), "-o", str(tmp_path / "r.json")]) == 0

    written = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert said(capsys) == f"wrote {tmp_path / 'r.json'}\n"
    assert written["suggestions"][0]["diff"][0] == "--- config.json before"
    assert main(["report", str(sample), "-o", str(tmp_path / "r.pdf")]) == 2
    assert "end it in .html" in said(capsys)
