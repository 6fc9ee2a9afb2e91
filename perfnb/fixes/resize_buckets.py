"""Fix: other sizes of the buckets in which DDP exchanges gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, OneOf, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_OFFERED: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 200)
_MOST: Final = 4
_MIB: Final = 1 << 20  # torch/nn/parallel/distributed.py: bucket_cap_mb counts these

# What DDP takes where bucket_cap_mb is None (torch 2.13, the same file). Naming 25 is another setting: only with None the first
# bucket is 1 MiB, so that the first exchange starts early.
_DEFAULT: Final = 25


def _run(*mib: float) -> Run:
    """One step of one rank that exchanges gradients in calls of these sizes."""
    calls = "\n".join(f"0 dp all_reduce {size * _MIB:.0f} {10 * number} 9 device" for number, size in enumerate(mib))
    return Run(
        steps=table_from_text("steps", "rank step start_us duration_us\n0 1 0 1000"),
        collectives=table_from_text("collectives", f"rank group collective bytes start_us duration_us clock\n{calls}"),
    )


@fix(
    knobs=("bucket_cap_mb",),
    answers=("small_collectives", "exposed_communication"),
    reason="few large calls start seldom, many small ones start early: between the two lies the shortest step",
    source="PyTorch documentation, DistributedDataParallel: bucket_cap_mb; PyTorch Distributed (VLDB 2020)",
    caution="None is not 25: only None keeps a first bucket of 1 MiB; which size is best has to be tried",
    examples=(
        FixExample(
            "tiny buckets", {"bucket_cap_mb": 0.1}, {"bucket_cap_mb": OneOf((25, 50, 10, 5))}, make_run=lambda: _run(*(1,) * 100)
        ),
        FixExample(
            "a small model stays in more than one bucket",
            {"bucket_cap_mb": 0.1},
            {"bucket_cap_mb": OneOf((2.5, 1, 0.5, 0.25))},
            make_run=lambda: _run(*(1,) * 6),
        ),
        FixExample(
            "default", {"bucket_cap_mb": None}, {"bucket_cap_mb": OneOf((50, 100, 10, 5))}, make_run=lambda: _run(*(25,) * 8)
        ),
        FixExample(
            "default, small model",
            {"bucket_cap_mb": None},
            {"bucket_cap_mb": OneOf((10, 5, 2.5, 1))},
            make_run=lambda: _run(1, 23),
        ),
        FixExample("gradients in one tenth of a MiB", {"bucket_cap_mb": None}, None, "0.1 MiB", make_run=lambda: _run(0.1)),
        FixExample("size not known", {"bucket_cap_mb": None}, None, "record(trace=5)"),
        FixExample("not a size", {"bucket_cap_mb": "25"}, None, "'25'", make_run=lambda: _run(100)),
        FixExample(
            "not DDP", {"bucket_cap_mb": 25, "parallelism": "fsdp"}, None, "parallelism is fsdp", make_run=lambda: _run(100)
        ),
    ),
)
def resize_buckets(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Offer other bucket sizes, of at most half of the gradients: in one bucket no exchange overlaps backward."""
    now = value_of(config, "bucket_cap_mb")
    if has_knob(config, "parallelism") and value_of(config, "parallelism") != "ddp":
        return f"parallelism is {value_of(config, 'parallelism')}, buckets are DDP's"
    if now is not None and (isinstance(now, bool) or not isinstance(now, (int, float)) or now <= 0):
        return f"bucket_cap_mb is {now!r}, no size"
    whole = _gradient_mib(run)
    if whole is None:
        return "how large the gradients are is not known: record(trace=5)"
    offered = [size for size in _OFFERED if size <= whole / 2 and size != now]
    if not offered:
        return f"all gradients are {whole:.1g} MiB: no two buckets of them are worth a call each"
    size = _DEFAULT if now is None else float(now)
    smaller, larger = [each for each in offered if each < size], [each for each in offered if each > size]
    if size < _DEFAULT:  # up to DDP's own size first, then past it, then nearer to what it is
        near, far = [each for each in larger if each <= _DEFAULT], [each for each in larger if each > _DEFAULT]
        values = [*near[-1:], *far[:1], *near[-2::-1]][:_MOST]
    else:
        values = [*larger[:2], *smaller[::-1]][:_MOST]
    return {"bucket_cap_mb": OneOf(tuple(values))} if values else f"buckets of {size:g} MiB are half of the gradients already"


def _gradient_mib(run: Run) -> float | None:
    """Size of what a rank exchanges by all-reduce for one micro-batch; too small where gradients are exchanged once for several.

    Of an estimate that bounds buckets from above the low side is the safe one.
    """
    calls = run.collectives[run.collectives["collective"].eq("all_reduce") & run.collectives["bytes"].notna()]
    if calls.empty or run.steps.empty:
        return None
    per_rank = calls.groupby("rank")["bytes"].sum()
    steps = run.steps[run.steps["is_profiled"]] if run.has_window else run.steps
    updates = steps.groupby("rank")["micro_batches"].agg(lambda parts: parts.fillna(1).clip(lower=1).sum())
    return float((per_rank / updates).max()) / _MIB
