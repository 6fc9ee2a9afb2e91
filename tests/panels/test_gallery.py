"""The gallery: its examples give what it says, and every panel and chart stands in it."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from perfnb import charts, panels


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "gallery.md").read_text(encoding="utf-8")


def test_the_examples_of_the_gallery_give_what_it_says(page: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    examples = doctest.DocTestParser().get_doctest(page, {}, "docs/gallery.md", "docs/gallery.md", 0)

    found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)

    assert found.attempted > 30
    assert found.failed == 0


def test_every_panel_and_every_chart_stands_in_the_gallery(page: str) -> None:
    opened = [name for name in panels.__all__ if name.islower()]
    drawn = [name for name in charts.__all__ if name.endswith("_chart")]

    assert [name for name in (*opened, *drawn) if name not in page] == []
