"""The one command that runs every check: all of them, even where one fails, and an exit code that says so."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def check(repository: Path) -> ModuleType:
    """The script as a module, whose checks a test may replace."""
    specification = importlib.util.spec_from_file_location("check", repository / "scripts" / "check.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["check"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def test_every_check_runs_and_a_failed_one_shows_what_it_said(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = (
        check.Check("first", ("-c", "import sys; print('why it broke'); print('=== 1 failed ==='); sys.exit(3)")),
        check.Check("second", ("-c", "print('detail'); print('=== 2 passed ===')")),
    )
    monkeypatch.setattr(check, "CHECKS", checks)

    code = check.main([])

    printed = capsys.readouterr().out
    assert code == 1
    assert [line.split()[0] for line in printed.splitlines() if " s  " in line] == ["FAILED", "ok"]
    assert "why it broke" in printed
    assert "detail" not in printed
    assert "2 passed" in printed
    assert "1 of 2 checks passed" in printed
    assert printed.endswith("; failed: first\n")


def test_checks_can_be_chosen_by_how_their_name_starts(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = (check.Check("first", ("-c", "raise SystemExit(1)")), check.Check("second", ("-c", "print('fine')")))
    monkeypatch.setattr(check, "CHECKS", checks)

    assert check.main(["sec"]) == 0
    assert check.main(["third"]) == 2

    assert "there are first, second" in capsys.readouterr().err


def test_the_checks_are_the_ones_that_the_house_style_names(check: ModuleType) -> None:
    commands = [" ".join(each.arguments) for each in check.CHECKS]

    for word in (
        "ruff format --check",
        "ruff check",
        "mypy",
        "lint_imports",
        "pytest -m not alone",
        "pytest -m alone",
        "coverage report",
        "--nbval ",
    ):
        assert sum(word in command for command in commands) == 1


def test_no_test_reaches_another_machine() -> None:
    with pytest.raises(PermissionError, match="fetches and sends nothing"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)  # RFC 5737: an address for documentation, nobody's
