"""A file written as one: the new bytes or the old, never half, and nothing left beside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from perfnb.whole_file import write_whole


def test_a_new_file_holds_the_bytes_and_has_the_mode_of_files_made_anew(tmp_path: Path) -> None:
    file, other = tmp_path / "report.html", tmp_path / "other"
    other.write_bytes(b"")

    write_whole(file, b"new")

    assert file.read_bytes() == b"new"
    assert file.stat().st_mode == other.stat().st_mode
    assert {each.name for each in tmp_path.iterdir()} == {"report.html", "other"}


def test_a_file_that_is_replaced_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "report.html", tmp_path / "latest.html"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)

    write_whole(link, b"new")

    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_stopped_before_the_renaming_the_old_bytes_stay_and_nothing_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, b"new")

    assert file.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
