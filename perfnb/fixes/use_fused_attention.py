"""Fix: compute attention in one kernel."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from perfnb.analyses.unfused_softmax import BATCHED
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_LARGEST_HEAD: Final = 256  # FlashAttention-2 and PyTorch's flash kernel: head size up to 256, a multiple of 8
_MULTIPLE: Final = 8
_UNFUSED: Final = ("eager", "manual", None)

_PAIR: Final = r"^\[" + ", ?".join([r"\[(\d+), ?(\d+), ?(\d+)\]"] * 2)  # two operands of three dimensions


def _attending(head: int) -> Run:
    header = "rank process thread category name start_us duration_us input_shapes"
    rows = (f"[[4,64,{head}],[4,{head},64]]", f"[[4,64,64],[4,64,{head}]]")
    host = "\n".join(f"0 1 1 operator aten::bmm {10 * place} 9 {shapes}" for place, shapes in enumerate(rows))
    return Run(host_ops=table_from_text("host_ops", f"{header}\n{host}"), signals=frozenset({"host_ops"}))


@fix(
    knobs=("attention",),
    answers=("unfused_attention",),
    reason="a fused kernel never writes the scores to memory",
    source="PyTorch documentation, scaled_dot_product_attention; Dao, FlashAttention-2 (2023)",
    caution="the mask must be causal, none, or one that a fused kernel takes; results differ in rounding; not validated on a GPU",
    examples=(
        FixExample("eager", {"attention": "eager"}, {"attention": "sdpa"}),
        FixExample("heads of 64", {"attention": "eager"}, {"attention": "sdpa"}, make_run=lambda: _attending(64 + 8)),
        FixExample("fused already", {"attention": "sdpa"}, None, "sdpa already"),
        FixExample("heads of 36", {"attention": "eager"}, None, "heads of 36", make_run=lambda: _attending(36)),
        FixExample("heads of 512", {"attention": "eager"}, None, "heads of 512", make_run=lambda: _attending(512)),
    ),
)
def use_fused_attention(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Call `scaled_dot_product_attention`, unless the recorded head sizes are none that fused kernels take."""
    now = value_of(config, "attention")
    if now not in _UNFUSED:
        return f"attention is {now} already"
    heads = _head_sizes(run)
    unfit = sorted(size for size in heads if size % _MULTIPLE or size > _LARGEST_HEAD)
    return f"fused kernels take no heads of {unfit[0]}" if unfit and len(unfit) == len(heads) else {"attention": "sdpa"}


def _head_sizes(run: Run) -> set[int]:
    """Inner size of the products whose result is the scores: the first of a pair, of which the second takes that result."""
    products = run.host_ops[run.host_ops["name"].isin(BATCHED)]
    shapes = products["input_shapes"].astype("string").str.extract(_PAIR).dropna().astype("int64").to_numpy()
    return {
        int(first[2])
        for first, second in pairwise(shapes)
        if (first[0], first[1], first[5]) == (second[0], second[1], second[2]) and first[2] == second[5]
    }
