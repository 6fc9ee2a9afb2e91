"""SageMaker Debugger's published rules, applied to the tables of our own recording: nothing of SageMaker runs here.

Thresholds are the defaults that its rules are documented with (smdebug_rulesconfig 1.0, profiler_rules/rules.py). In its favour:

- its `patience`, 1,000 samples or over eight minutes, is dropped: no case lasts that long, and no rule would ever speak;
- on a job without GPUs "and the GPU is below 10 %" counts as true;
- waiting for I/O is not in our tables: the kernel's pressure of I/O ("some") stands for it, which is never below it;
- `Dataloader` speaks only where there are too many loader processes. Too few, its other half, it would say of every training
  with fewer workers than cores, healthy ones among them.

GPUMemoryIncrease, LowGPUUtilization, BatchSize and LoadBalancing need GPUs; MaxInitializationTime needs 20 minutes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from perfnb.run import Run

VERSION: Final = "smdebug_rulesconfig 1.0 thresholds"
CPU_ABOVE: Final = 0.90  # CPUBottleneck: cpu_threshold 90
IO_ABOVE: Final = 0.50  # IOBottleneck: io_threshold 50
SHARE_OF_SAMPLES: Final = 0.50  # CPUBottleneck, IOBottleneck: threshold 50
DEVIATIONS: Final = 3.0  # StepOutlier: stddev 3
OUTLIERS: Final = 10  # StepOutlier: n_outliers 10
FEWEST_STEPS: Final = 100  # StepOutlier judges more than 100 steps (smdebug/profiler/analysis/rules/step_outlier.py)
WORKERS_PER_CORE: Final = 2.0  # Dataloader: max_threshold 200


def fired(run: Run) -> dict[str, str]:
    """Rules that speak of a run, with the number that made them; in the order in which its report lists them.

    Parameters
    ----------
    run
        Any run with table steps; rules whose tables are missing stay silent.
    """
    found: dict[str, str] = {}
    samples = run.host_samples
    for rule, column, limit in (("CPUBottleneck", "cpu_share", CPU_ABOVE), ("IOBottleneck", "pressure_io_share", IO_ABOVE)):
        values = samples[column].dropna()
        share = float((values > limit).mean()) if len(values) else 0.0
        if share > SHARE_OF_SAMPLES:
            found[rule] = f"{column} is above {limit:.0%} in {share:.0%} of {len(values)} samples"
    for rank, steps in run.steps.groupby("rank"):
        durations = steps["duration_us"].dropna().to_numpy()
        outliers = int((durations > durations.mean() + DEVIATIONS * np.std(durations)).sum()) if len(durations) else 0
        if len(durations) > FEWEST_STEPS and outliers > OUTLIERS:
            found["StepOutlier"] = f"rank {rank}: {outliers} of {len(durations)} steps"
    workers, cores = samples["workers"].dropna(), run.machine.cpu_capacity
    if cores and len(workers) and float(workers.astype(float).median()) > WORKERS_PER_CORE * cores:
        found["Dataloader"] = f"{float(workers.astype(float).median()):.0f} loader processes on {cores:g} cores"
    return found
