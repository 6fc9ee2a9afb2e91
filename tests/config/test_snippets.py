"""Code to paste: right for the value, and nothing that a value holds becomes code."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.catalogue import fixes
from perfnb.config.snippets import SNIPPETS, snippet


def test_every_knob_that_a_fix_changes_has_code() -> None:
    assert {knob for fix in fixes() for knob in fix.knobs} - SNIPPETS.keys() == set()


@pytest.mark.parametrize(
    ("knob", "value", "code"),
    [
        ("num_workers", 4, "loader = torch.utils.data.DataLoader(dataset, ..., num_workers=4)"),
        ("optimizer_implementation", "fused", "optimizer = torch.optim.AdamW(model.parameters(), ..., fused=True)"),
        (
            "memory_format",
            "channels_last",
            "model = model.to(memory_format=torch.channels_last)\nimages = images.to(memory_format=torch.channels_last)",
        ),
        (
            "gradient_compression",
            "none",
            (
                "# leave out: from torch.distributed.algorithms.ddp_comm_hooks import default_hooks\n"
                "# leave out: model.register_comm_hook(None, ...)"
            ),
        ),
        ("compile", True, "model = torch.compile(model)"),
        ("compile", False, "# leave out: model = torch.compile(model)"),
        ("gc_freeze", False, "# leave out: gc.collect()\n# leave out: gc.freeze()  # once, after model and loader are made"),
        ("betas", (0.9, 0.99), 'for group in optimizer.param_groups:\n    group["betas"] = tuple([0.9, 0.99])'),
        ("data_root", object(), "dataset = YourDataset(root=...)"),
        ("data_root", "x" * 1000, "dataset = YourDataset(root=...)"),
        ("warp_factor", 9, None),
    ],
)
def test_the_code_sets_the_value(knob: str, value: Any, code: str | None) -> None:
    assert snippet(knob, value) == code


@given(st.sampled_from(sorted(SNIPPETS)), st.text(max_size=30) | st.lists(st.text(max_size=9), max_size=2))
def test_a_text_stays_a_text_whatever_it_holds(knob: str, value: Any) -> None:
    code = snippet(knob, value)

    assert code is not None
    assert code.isascii()
    assert code.replace("\n", "").isprintable()
    harmless = snippet(knob, "a" if isinstance(value, str) else ["a"] * len(value))
    assert harmless is not None
    assert code.count("\n") == harmless.count("\n")


def test_code_without_blocks_is_python() -> None:
    parsed = [knob for knob in SNIPPETS if ast.parse(_whole(snippet(knob, 2) or ""))]

    assert parsed == list(SNIPPETS)


def _whole(code: str) -> str:
    """The code with a body below a line that opens a block and has none."""
    last = code.rstrip().splitlines()[-1].partition("  #")[0]
    return f"{code}\n    ..." if last.endswith(":") else code
