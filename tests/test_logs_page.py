"""The page on logs: its examples give what it says, and its tables are those of the code."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

import perfnb
from perfnb.read.metric_names import EXACT, IN_SNAPSHOTS, IN_SYSTEM, QUANTITIES


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).resolve().parent.parent / "docs" / "logs.md").read_text(encoding="utf-8")


def rows(page: str, head: str) -> list[list[str]]:
    """Cells of the table below a head, without backticks."""
    lines = page.partition(f"\n{head}\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_examples_of_the_page_give_what_it_says(page: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    examples = doctest.DocTestParser().get_doctest(page, {}, "docs/logs.md", "docs/logs.md", 0)

    found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)

    assert found.attempted >= 8
    assert found.failed == 0


def test_every_quantity_stands_on_the_page_with_all_its_names(page: str) -> None:
    named = {cells[0]: cells[1] for cells in rows(page, "| quantity | other names | unit of | goes to |")}

    assert named == {quantity.name: ", ".join(quantity.synonyms[1:]) or "-" for quantity in QUANTITIES}


def test_names_of_single_inputs_and_tools_stand_on_the_page(page: str) -> None:
    snapshots = {name: cells[0] for cells in rows(page, "| quantity | other names |") for name in cells[1].split(", ")}
    tools = {cells[0]: tuple(cells[1:]) for cells in rows(page, "| name | quantity | unit | by |")}

    assert snapshots == dict(IN_SNAPSHOTS)
    assert tools == dict(EXACT)
    assert all(f"`{name}` (`{quantity}`)" in page for name, quantity in IN_SYSTEM.items())


def test_functions_and_arguments_of_the_page_are_there(page: str, repository: Path) -> None:
    for name, arguments in re.findall(r"`(read_\w+)\(([\w, ]+)\)`", page):
        assert set(arguments.split(", ")) <= set(inspect.signature(getattr(perfnb, name)).parameters)
    assert all((repository / "docs" / file).resolve().exists() for file in re.findall(r"\]\(([^)]+)\)", page))
