"""What a report says of the surroundings: what the run ran on, what recording it cost, what its config was."""

from __future__ import annotations

import platform
from collections import Counter
from typing import Any, Final

import perfnb
from perfnb import text
from perfnb.report_secrets import HIDDEN, is_secret
from perfnb.run import Run

Rows = tuple[tuple[str, str], ...]

UNKNOWN: Final = "not known: the files do not say"
_MOST_KNOBS: Final = 200
_MOST_CONSTANTS: Final = 40
_CONFIG_DEPTH: Final = 4


def environment(run: Run) -> Rows:
    """What a run ran on and what reported it: name and value, one row each; what is not known says so.

    Examples
    --------
    >>> dict(environment(Run()))["devices"]
    'not known: the files do not say'
    """
    machine = run.machine
    devices = ", ".join(f"{number} x {text.name(name)}" for name, number in Counter(machine.devices).items())
    memory = ", ".join(
        f"{number} x {text.byte_size(size)}" for size, number in Counter(machine.device_memory_bytes).items() if size
    )
    read = f"{len(run.ranks)}" + (f" of {run.world_size}" if run.world_size else ", and how many the job has is not known")
    links = sorted({link for row in machine.links for link in row if link != "X"})
    rows = [
        ("read from", ", ".join(text.name(name) for name in run.source) or UNKNOWN),
        ("ranks read", read),
        ("devices", devices or UNKNOWN),
        ("device memory", memory or UNKNOWN),
        ("cores for the job", f"{machine.cpu_capacity:g}" if machine.cpu_capacity is not None else UNKNOWN),
        ("torch of the run", text.name(machine.torch_version) if machine.torch_version else UNKNOWN),
        ("links", ", ".join(text.name(link) for link in links) or UNKNOWN),
        *((f"measured {text.name(name)}", f"{value:.4g}") for name, value in list(machine.constants.items())[:_MOST_CONSTANTS]),
        ("reported by", f"perfnb {perfnb.__version__}, Python {platform.python_version()}, {platform.system()}"),
    ]
    return tuple(rows)


def overhead(run: Run) -> Rows:
    """What recording cost the run: one row per rank that perfnb recorded; else why that is not known.

    Hooks: calls times their calibrated cost, per mean step. The cost of other profilers is not in it.
    """
    rows = []
    step_us = float(run.steps["duration_us"].mean()) if len(run.steps) else None
    for each in run.recordings:
        pieces = []
        if each.hook_us_per_step is not None:
            share = f", {text.share(each.hook_us_per_step / step_us)} of the mean step" if step_us else ""
            pieces.append(f"hooks {text.duration(each.hook_us_per_step)} per step{share} (calibrated)")
        if each.sampler_cpu_share is not None:
            pieces.append(f"sampler {text.share(each.sampler_cpu_share)} of one core")
        rows.append((f"rank {each.rank}", ", ".join(pieces) or "not measured: the recording does not hold it"))
    if not rows:
        rows.append(("recording", "not measured: perfnb did not record this run, and what its profiler cost is not in the files"))
    if len(run.steps) and run.steps["is_profiled"].any():
        profiled, steps = int(run.steps["is_profiled"].sum()), len(run.steps)
        rows.append(
            ("profiler", f"{profiled:,} of {text.count(steps, 'step')} ran under torch.profiler, which slows what it sees")
        )
    return tuple(rows)


def endings(run: Run) -> Rows:
    """How the recording of each rank stands where it did not finish."""
    return tuple(
        (f"rank {each.rank}", f"{each.state}: {text.clean(each.reason, 400)}" if each.reason else each.state)
        for each in run.recordings
        if each.state != "finished"
    )


def config_rows(config: Any) -> Rows:
    """Knobs of a config with their values, nested ones by dotted names; values are cut to what a line holds.

    Examples
    --------
    >>> config_rows({"lr": 0.1, "data": {"num_workers": 0}})
    (('lr', '0.1'), ('data.num_workers', '0'))
    """
    rows = list(_flat(config, "", 0))
    more = [("...", f"{len(rows) - _MOST_KNOBS} more")] if len(rows) > _MOST_KNOBS else []
    return (*rows[:_MOST_KNOBS], *more)


def _flat(node: Any, prefix: str, depth: int) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for knob, value in node.items():
        name = f"{prefix}{text.name(knob)}"
        if hasattr(value, "items") and depth < _CONFIG_DEPTH:
            rows += _flat(value, f"{name}.", depth + 1)
        else:
            rows.append((text.name(name), HIDDEN if is_secret(str(knob)) else text.name(value)))
    return rows
