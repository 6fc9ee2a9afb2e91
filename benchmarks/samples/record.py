"""Command line that records the samples: ``python -m benchmarks.samples.record [NAME ...]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.samples.files import PROGRAM, write_expected, write_run
from benchmarks.samples.host import NoisyHostError
from benchmarks.samples.measure import DROPPED_STEPS_PER_TURN, TURNS_PER_ROUND, Limits, measure, wait_together
from benchmarks.samples.ranks import from_all_ranks, run_in_ranks, this_rank
from benchmarks.samples.trace import profiled_share, profiled_step_us, record_trace
from benchmarks.samples.workloads import WORKLOADS, Workload

SESSIONS_AT_MOST = 5
RECORDINGS_AT_MOST = 15
FEWEST_STEPS = TURNS_PER_ROUND * (DROPPED_STEPS_PER_TURN + 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Record the named workloads, or all, and write the table of expected severities.

    Parameters
    ----------
    arguments
        Words of the command line.

    Returns
    -------
    int
        0 once all are recorded; 1 when the machine was too noisy.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(WORKLOADS)}; all when left out")
    parser.add_argument("--out", type=Path, default=Path("data/samples"), help="folder to write")
    parser.add_argument("--repeats", type=int, default=4, help="rounds of un-profiled measuring")
    parser.add_argument("--steps", type=int, default=60, help="steps per variant and round, the first 2 of 12 dropped")
    parser.add_argument("--profiled-steps", type=int, default=40, help="steps in each trace")
    parser.add_argument("--accept-noise", action="store_true", help="for tests: neither wait for a quiet machine nor refuse")
    chosen = parser.parse_args(words)
    unknown = set(chosen.names) - set(WORKLOADS)
    if unknown:
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    if chosen.steps < FEWEST_STEPS:
        parser.error(f"--steps {chosen.steps} leaves no step to measure: at least {FEWEST_STEPS}")
    for name in chosen.names or WORKLOADS:
        try:
            run_in_ranks(WORKLOADS[name].before["world_size"], record, WORKLOADS[name], chosen)
        except Exception as error:  # a rank's error arrives as torch's own exception, with the text inside
            if NoisyHostError.__name__ not in repr(error) + str(error):
                raise
            print(f"{name}: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
            return 1
        write_expected(chosen.out)
    return 0


def record(workload: Workload, chosen: argparse.Namespace) -> None:
    """Measure a workload and record its runs; called in each rank.

    Parameters
    ----------
    workload
        What to record.
    chosen
        The parsed command line.
    """
    limits = None if chosen.accept_noise else Limits()
    refused: list[dict[str, Any]] = []
    for session in range(1, SESSIONS_AT_MOST + 1):
        truth: dict[str, Any] = {}
        try:
            truth = {**measure(workload, chosen.repeats, chosen.steps, limits), "sessions_refused": refused}
            say(f"{workload.name}: share {truth['share']:.4f}, spread {truth['spread_share']}")
            recordings = {
                "before": accepted_recording(workload, "before", truth, chosen.profiled_steps, limits),
            }
            if workload.cure is not None:
                recordings["after"] = accepted_recording(workload, "after", truth, chosen.profiled_steps, limits)
        except NoisyHostError as noise:
            say(f"  session {session} refused: {noise}")
            refused.append({"reason": str(noise), "share": truth.get("share"), "spread_share": truth.get("spread_share")})
            if session == SESSIONS_AT_MOST:
                raise
        else:
            break
    for variant, (texts, profiled) in recordings.items():
        folder = chosen.out / workload.name / ("" if variant == "before" else variant)
        if this_rank() == 0:
            write_run(folder, workload, variant, texts, {"profiled": profiled, "truth": truth}, chosen)


def accepted_recording(
    workload: Workload, variant: str, truth: dict[str, Any], active_steps: int, limits: Limits | None
) -> tuple[list[str], dict[str, Any]]:
    """Traces of all ranks whose steps take about as long as those without a profiler, and what the profile says.

    Parameters
    ----------
    workload, variant
        What to record.
    truth
        Its measured truth.
    active_steps
        Steps in the trace.
    limits
        Noise to refuse; None accepts the first recording.

    Returns
    -------
    tuple[list[str], dict[str, Any]]
        Texts by rank, and step mean, share and overhead as profiled.

    Raises
    ------
    NoisyHostError
        If no recording agrees.
    """
    true_step_us = truth[f"{variant}_step_us"]
    # Chosen by the length of the step alone, never by the share that detectors are to find: that would prove them in a circle.
    allowed_share = limits.overhead_share if limits else float("inf")
    discarded: list[dict[str, float]] = []
    for _ in range(RECORDINGS_AT_MOST):
        if limits:
            wait_together(workload)
        texts = from_all_ranks(record_trace(workload.variants()[variant], active_steps))
        step_us = fmean(fmean(profiled_step_us(text)) for text in texts)
        profiled = {
            "steps": active_steps,
            "mean_step_us": step_us,
            "share": profiled_share(texts, workload.detector),
            "profiler_overhead_share": step_us / true_step_us - 1,
            "recordings_discarded": discarded,
        }
        say(f"  {variant}: share {profiled['share']:.4f}, overhead {profiled['profiler_overhead_share']:+.3f}")
        if abs(profiled["profiler_overhead_share"]) <= allowed_share:
            return texts, profiled
        discarded.append({key: profiled[key] for key in ("share", "mean_step_us")})
    message = f"{workload.name}: no {variant} recording takes as long as un-profiled steps do in {RECORDINGS_AT_MOST} tries"
    raise NoisyHostError(message)


def say(line: str) -> None:
    """Print a line once, whatever the number of ranks."""
    if this_rank() == 0:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
