"""The page on memory: its examples give what it says, and its table of rules is that of the code."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from perfnb.schemas import SCHEMAS
from perfnb.whatif.caching_allocator import RULES


def test_the_examples_of_the_page_give_what_it_says(repository: Path) -> None:
    text = (repository / "docs" / "memory.md").read_text(encoding="utf-8")
    found = doctest.DocTestParser().get_doctest(text, {}, "memory.md", "docs/memory.md", 0)

    outcome = doctest.DocTestRunner(verbose=False).run(found)

    assert outcome.attempted == 4
    assert outcome.failed == 0


def test_the_page_says_of_every_rule_what_confirmed_it(repository: Path) -> None:
    text = (repository / "docs" / "memory.md").read_text(encoding="utf-8")

    for rule, source in RULES.items():
        assert f"\n| `{rule}` | {source or 'not validated'} |\n" in text


def test_the_page_names_only_columns_that_there_are(repository: Path) -> None:
    text = (repository / "docs" / "memory.md").read_text(encoding="utf-8")
    table = text.split("| column | meaning |")[1].split("\n\n")[0]

    named = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}

    assert named == {"action", "bytes", "requested_bytes", "allocated_bytes", "reserved_bytes", "address", "stream", "pool"} | {
        "category",
        "stack",
    }
    assert named <= set(SCHEMAS["allocations"])
