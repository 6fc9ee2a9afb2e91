"""The page on configs: its blocks run as they stand, one after another, and print what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from perfnb.config.dialects.known import DIALECTS
from perfnb.config.file_home import FORMATS
from perfnb.config.safe_file import LARGEST_BYTES, MOST_BACKUPS

pytest.importorskip("torch")
pytest.importorskip("ruamel.yaml")

pytestmark = pytest.mark.torch

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "configs.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(PAGE)


def test_the_blocks_run_one_after_another_and_print_what_stands_below_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    printed = ""
    compared = 0

    for kind, code in BLOCKS:
        if kind == "text":
            assert [line.rstrip() for line in printed.splitlines() if line.strip()] == [
                line.rstrip() for line in code.splitlines() if line.strip()
            ]
            compared += 1
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "docs/configs.md", "exec", dont_inherit=True), names)  # noqa: S102 - the page's own code
        printed = out.getvalue()

    assert {kind for kind, _ in BLOCKS} == {"python", "text"}
    assert compared == 4
    assert [each.name for each in tmp_path.iterdir()] == ["train.yaml"]


def test_figures_and_names_of_the_page_are_those_of_the_code() -> None:
    assert f"over {LARGEST_BYTES >> 20} MiB" in PAGE
    assert {20: "Twenty"}[MOST_BACKUPS] + " are kept per file" in PAGE
    assert f"({', '.join(DIALECTS)})" in re.sub(r"\s+", " ", PAGE)
    for ending in FORMATS:
        assert ending == ".jsonc" or ending in PAGE


def test_every_name_in_the_table_of_the_libraries_is_one_of_the_rules() -> None:
    table = PAGE.partition("## Names of the libraries")[2]
    known = {str(name) for dialect in DIALECTS.values() for rule in dialect.rules for path in rule.paths for name in path}

    for row in re.findall(r"^\| [a-z].*$", table, re.MULTILINE)[1:]:
        for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", row.split("|", 2)[2]):
            assert name in known | {"deepspeed_stage_n"}, name
