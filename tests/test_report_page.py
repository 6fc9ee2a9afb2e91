"""The page on reports and scripts: its examples run as they stand, in a folder of their own."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from perfnb.commands.known import commands
from perfnb.report_file import LARGEST_PAGE_BYTES


def test_the_examples_of_the_page_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").symlink_to(repository / "data")
    monkeypatch.chdir(tmp_path)

    done = doctest.testfile(str(repository / "docs" / "report.md"), module_relative=False, optionflags=doctest.ELLIPSIS)

    assert done.attempted > 10
    assert done.failed == 0
    assert {each.name for each in tmp_path.iterdir()} == {"data", "perfnb_report.html", "perfnb_output"}


def test_figures_and_commands_of_the_page_are_those_of_the_code(repository: Path) -> None:
    page = (repository / "docs" / "report.md").read_text(encoding="utf-8")

    assert f"at most {LARGEST_PAGE_BYTES // 1000} kB" in page
    assert {"report", "apply", "undo", "validate"} <= set(commands())
