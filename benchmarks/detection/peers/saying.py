"""What a peer said, as findings: read from its raw output, so that a better reading needs no new run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.detection.peers.mapping import MEANINGS, Meaning

OURS: Final = "perfnb"

_GPUPROF: Final[tuple[tuple[str, str], ...]] = (
    # gpuprof 0.7.1 says which rule spoke by its title only
    (r"step time waiting on the loader", "dataloader_stall"),
    (r"CPU pegged", "cpu_bound_dataloader"),
    (r"I/O-bound", "io_bound_dataloader"),
    (r"^Cold-cache", "cold_cache"),
    (r"^Cache thrashing", "cache_thrashing"),
    (r"^Prefetch queue starved", "prefetch_queue_starved"),
    (r"worker imbalance", "worker_imbalance"),
    (r"of step unaccounted", "kernel_launch_overhead"),
    (r"p99/p50", "high_step_variance"),
    (r"comm is .* of step time", "comm_dominant"),
    (r"^Rank skew", "rank_skew"),
    (r"^Bucket ", "bucket_skew"),
    (r"^Regression vs", "regression"),
    (r"^Kernel drift", "kernel_drift"),
    (r"^Host memory pressure", "host_memory_pressure"),
    (r"^MFU ", "low_mfu"),
    (r"arithmetic intensity", "small_batch"),
    (r"^Peak memory", "memory_pressure"),
    (r"(?i)clock|thermal|throttl", "thermal_throttling"),
    (r"(?i)pcie", "pcie_saturation"),
    (r"backward/forward", "gradient_checkpointing"),
    (r"steady-state", "warmup"),
    (r"filter it from averages", "first_step_outlier"),
    (r"(?i)attention|sdpa", "sdpa"),
    (r"^Estimated cost", "cost_projection"),
    (r"^No (major bottlenecks|rank skew)", "healthy"),
)
_TENSORBOARD: Final[tuple[tuple[str, str], ...]] = (
    ("cost on input data loading", "input"),
    ("cost on communication", "communication"),
    ("low utilization", "low_utilization"),
    ("instead of DataParallel", "data_parallel"),
    ("Nccl backend", "nccl"),
    ("Tensor Cores eligible", "tensor_cores"),
    ("Device memory usage is at the limit", "memory"),
)
_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?)\s?%")
_TRACEML_SECTIONS: Final = ("step_time", "step_memory", "process", "system")
_TRACEML_INFORMATION: Final = "info"
_TRACEML_SHARES: Final = ("INPUT_BOUND", "H2D_BOUND", "RESIDUAL_HEAVY")


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that a peer said.

    Attributes
    ----------
    rule
        The peer's rule, as in `mapping`.
    meaning
        What it stands for.
    text
        In the peer's words.
    shares
        Share of the step that it states, and where its base is another one, the share of the step that follows from it: sizes
        are judged by whichever is nearer to the truth. Empty where none is stated.
    """

    rule: str
    meaning: Meaning
    text: str
    shares: tuple[float, ...] = ()


UNKNOWN: Final = Meaning((), "a rule that the mapping does not have")


def said(peer: str, raw: Mapping[str, Any]) -> tuple[Said, ...]:
    """Findings of a peer, first named first, each rule once; what is no finding is left out.

    Parameters
    ----------
    peer
        Its name in `mapping.MEANINGS`.
    raw
        As stored by `execution`.

    Raises
    ------
    ValueError
        If it says something that the mapping does not have: then the mapping must be completed, whatever that does to a score.
    """
    everything = list(_READERS[peer](raw))
    unknown = [each.text for each in everything if each.meaning is UNKNOWN]
    if unknown:
        message = f"{peer} says what peers/mapping.py has no row for: {'; '.join(unknown)[:400]}"
        raise ValueError(message)
    kept: dict[str, Said] = {}
    for each in everything:
        if each.meaning.is_finding and not (each.rule in kept and (kept[each.rule].shares or not each.shares)):
            kept[each.rule] = each  # said again with its size: that one, in the place of the first
    return tuple(kept.values())


def _meaning(peer: str, rule: str) -> Meaning:
    return MEANINGS[peer].get(rule, UNKNOWN)


def _traceml(raw: Mapping[str, Any]) -> Iterator[Said]:
    """Its primary diagnosis first, then the issues of each section."""
    issues = [raw.get("primary_diagnosis") or {}]
    issues += [issue for section in _TRACEML_SECTIONS for issue in (raw.get(section) or {}).get("issues") or ()]
    for issue in issues:
        if issue.get("severity", _TRACEML_INFORMATION) == _TRACEML_INFORMATION:
            continue
        kind = str(issue["kind"]).removesuffix("_UNEXPLAINED")
        yield Said(kind, _meaning("traceml", kind), str(issue.get("summary", "")), _traceml_shares(kind, issue))


def _traceml_shares(kind: str, issue: Mapping[str, Any]) -> tuple[float, ...]:
    """Share of the step: the score of a phase, or what a straggler costs over the step; no share of a CPU or a memory."""
    evidence = issue.get("evidence") or {}
    if kind.endswith("STRAGGLER"):
        cost, step = evidence.get("visible_cost_ms"), evidence.get("step_time_ms")
        return (float(cost) / float(step),) if cost is not None and step else ()
    share = issue.get("share_pct", evidence.get("score"))  # 0 to 1, whatever its name says
    return (float(share),) if kind in _TRACEML_SHARES and share is not None else ()


def _gpuprof(raw: Mapping[str, Any]) -> Iterator[Said]:
    """Insights of all ranks and of their group, in the order in which it prints them."""
    insights = [insight for rank in raw["ranks"] for part in rank.values() for insight in part["insights"]]
    for insight in insights:
        title = str(insight["title"])
        rule = _first(_GPUPROF, title)
        found = _PERCENT.search(title)
        shares: tuple[float, ...] = ()
        if found is not None and rule in {"dataloader_stall", "kernel_launch_overhead", "comm_dominant"}:
            stated = float(found.group(1)) / 100
            # Its step ends with the optimizer: the wait for data lies between steps, so of a whole step it is s / (1 + s).
            shares = (stated, stated / (1 + stated)) if rule == "dataloader_stall" else (stated,)
        yield Said(rule, _meaning("gpuprof", rule), title, shares)


def _tensorboard(raw: Mapping[str, Any]) -> Iterator[Said]:
    for rank in raw["ranks"]:
        for text in rank["recommendations"]:
            plain = re.sub(r"<[^>]*>", "", str(text))
            rule = next((name for words, name in _TENSORBOARD if words in plain), "")
            found = _PERCENT.search(plain)
            shares = (float(found.group(1)) / 100,) if found and rule in {"input", "communication"} else ()
            yield Said(rule, _meaning("torch_tb_profiler", rule), plain, shares)


def _sagemaker(raw: Mapping[str, Any]) -> Iterator[Said]:
    for rule, text in raw["fired"].items():
        yield Said(rule, _meaning("sagemaker", rule), str(text))


def _perfnb(raw: Mapping[str, Any]) -> Iterator[Said]:
    """Our own findings: each stands for its detector alone."""
    for each in raw["found"]:
        yield Said(each["detector"], Meaning((each["detector"],), "its own"), each["detector"], (each["severity"],))


def _first(patterns: Sequence[tuple[str, str]], text: str) -> str:
    return next((name for pattern, name in patterns if re.search(pattern, text)), "")


_READERS: Final = {
    "traceml": _traceml,
    "gpuprof": _gpuprof,
    "torch_tb_profiler": _tensorboard,
    "sagemaker": _sagemaker,
    OURS: _perfnb,
}
