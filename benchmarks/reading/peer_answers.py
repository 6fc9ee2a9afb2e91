"""What HTA's answers cost: `python peer_answers.py FILE...` under an interpreter that has HTA; one file per rank."""

from __future__ import annotations

import inspect
import json
import logging
import resource
import sys
from collections.abc import Callable
from typing import Any, Final

MARK: Final = "measured: "
ABSENT: Final = "absent: "

# our table -> HTA's method and its arguments; those that return figures in place of a table are told not to draw
ANSWERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "device_breakdown": ("get_temporal_breakdown", {"visualize": False}),
    "communication_overlap": ("get_comm_comp_overlap", {"visualize": False}),
    "idle_gaps": ("get_idle_time_breakdown", {"visualize": False}),
    "stragglers": ("get_potential_stragglers", {}),
    "kernel_summary": ("get_gpu_kernel_breakdown", {"visualize": False}),
    "annotation_device_time": ("get_gpu_user_annotation_breakdown", {"visualize": False}),
    "operator_kernels": ("get_aten_op_kernels_and_delay", {}),
    "launches": ("get_cuda_kernel_launch_stats", {"visualize": False}),
    "launch_queue": ("get_queue_length_summary", {}),
    "copies": ("get_memory_bw_summary", {}),
    "critical_path": ("critical_path_analysis", {"rank": 0, "annotation": "ProfilerStep", "instance_id": None}),
}


def main(files: list[str]) -> int:
    """Load once, ask each question once, print CPU seconds or the error of each."""
    logging.disable(logging.CRITICAL)
    try:
        from hta.trace_analysis import TraceAnalysis  # type: ignore[import-not-found]  # noqa: PLC0415 - the peer's environment only
    except ImportError as error:
        print(f"{ABSENT}this interpreter has no HTA ({error})")
        return 0
    start = _cpu_s()
    analysis = TraceAnalysis(trace_files=dict(enumerate(files)), trace_dir="")
    found: dict[str, Any] = {"load": {"method": "TraceAnalysis(...)", "cpu_s": _cpu_s() - start, "error": ""}}
    steps = len(analysis.t.get_iterations())
    for name, (method, arguments) in ANSWERS.items():
        given = dict(arguments)
        if "ranks" in inspect.signature(getattr(analysis, method)).parameters:  # by default some look at one rank only
            given["ranks"] = analysis.t.get_ranks()
        if "instance_id" in given:  # the whole recording, as far as steps were kept
            given["instance_id"] = (0, max(0, steps - 1))
        found[name] = _asked(getattr(analysis, method), given) | {"method": method}
    print(MARK + json.dumps(found))
    return 0


def _cpu_s() -> float:
    """User and system seconds of this process and of the pool that reads several ranks."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _asked(method: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    start = _cpu_s()
    try:
        method(**arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what the peer fails with is part of the answer
        return {"cpu_s": _cpu_s() - start, "error": f"{type(error).__name__}: {str(error)[:100]}"}
    return {"cpu_s": _cpu_s() - start, "error": ""}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
