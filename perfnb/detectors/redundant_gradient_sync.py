"""Detector of gradients that are exchanged more often than an update needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb import text
from perfnb.analyses.gradient_syncs import repeated_syncs, search_us
from perfnb.analyses.transfers import ON_HOST, delay_of, job_of, transfers
from perfnb.config.mapping import has_knob, value_of
from perfnb.detector import ConfigHint, Unmeasured, detector, example

_FORWARD: Final = "DistributedDataParallel.forward"
_SEARCH_HINT: Final = (
    "find_unused_parameters is on: DDP searches the graph in each forward{cost}. Where it warned that it found no unused "
    "parameter, turn it off"
)


def _text(synced: tuple[int, ...], *, exchanged: int = 20) -> dict[str, Any]:
    """Two steps of 100 us of two ranks with 4 micro-batches; gradients of those in `synced` are exchanged, 5 us each."""
    steps, phases = ["rank step start_us duration_us micro_batches"], ["rank step phase wall_us"]
    collectives = ["rank group collective bytes start_us duration_us clock"]
    host = ["rank process thread category name start_us duration_us"]
    for step in range(2):
        for rank in range(2):
            start = step * 100
            steps.append(f"{rank} {step} {start} 100 4")
            phases += [f"{rank} {step} forward {100 - exchanged}", f"{rank} {step} communication {exchanged}"]
            host += [f"{rank} 1 1 annotation {_FORWARD} {start + 20 * micro} 5" for micro in range(4)]
            collectives += [f"{rank} gloo all_reduce 100 {start + 20 * micro + 15} 5 host" for micro in synced]
    tables = {"steps": steps, "phases": phases, "collectives": collectives, "host_ops": host}
    return {name: "\n".join(rows) for name, rows in tables.items()}


@detector(
    family="communication",
    title="Exchanging gradients that no update uses yet",
    claims=("exposed_communication", *ON_HOST),
    after=("single_process_parallelism", "host_staged_collectives"),
    injected_by="sync_each_micro",
    recorded_only_when="the detection benchmark injects it",
    source="PyTorch documentation, DistributedDataParallel: no_sync and find_unused_parameters; waits above 5 % of a step",
    not_to_confuse_with=("exposed_communication", "small_collectives"),
    examples=(
        example(
            "gradients of each of 4 micro-batches are exchanged: 3 of 4 exchanges of 20 us are not needed",
            lost_share=0.15,
            world_size=2,
            **_text((0, 1, 2, 3)),
        ),
        example("3/4 of 6 us stay under the threshold", lost_share=0.045, world_size=2, **_text((0, 1, 2, 3), exchanged=6)),
        example("only those of the last micro-batch are exchanged", lost_share=0.0, world_size=2, **_text((3,))),
        example(
            "without ranges of DDP: calls of 100 and 200 bytes come twice in a step of 2 micro-batches",
            lost_share=0.10,
            world_size=2,
            steps="""rank step start_us duration_us micro_batches
                     0    1    0        100         2
                     1    1    0        100         2""",
            phases="""rank step phase         wall_us
                      0    1    communication 20
                      0    1    backward      80
                      1    1    communication 20
                      1    1    backward      80""",
            collectives="""rank group collective bytes start_us duration_us clock
                           0    gloo  all_reduce 100   30       10          host
                           0    gloo  all_reduce 200   40       10          host
                           0    gloo  all_reduce 100   80       10          host
                           0    gloo  all_reduce 200   90       10          host
                           1    gloo  all_reduce 100   30       10          host
                           1    gloo  all_reduce 200   40       10          host
                           1    gloo  all_reduce 100   80       10          host
                           1    gloo  all_reduce 200   90       10          host""",
        ),
        example(
            "some parameters are unused: the search is needed",
            lost_share=0.0,
            world_size=2,
            config={"find_unused_parameters": True, "unused_parameters": 2},
            **_text((3,)),
        ),
    ),
)
def redundant_gradient_sync(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    config: Mapping[str, Any],
    world_size: int | None,
    collectives: pd.DataFrame | None = None,
    host_ops: pd.DataFrame | None = None,
    device_ops: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time of exchanging gradients of micro-batches before the last of an update.

    A micro-batch counts where its calls repeat those of the last one in the step. On the host's clock the share is that of the
    profiler's window. It matters because `no_sync` gives the same update with one exchange. It cannot see which parameters are
    unused, so a search for them (find_unused_parameters) is a hint with its time, as is a config alone.
    """
    searches = has_knob(config, "find_unused_parameters") and value_of(config, "find_unused_parameters") is True
    unused = value_of(config, "unused_parameters") if has_knob(config, "unused_parameters") else None
    if collectives is None or (collectives.empty and world_size != 1):
        raise _without_calls(config, steps, searches=searches)
    job = job_of(steps, collectives, device_ops, world_size)
    run = job if host_ops is None else dataclasses.replace(job, host_ops=host_ops)
    found = transfers(run)
    repeated = repeated_syncs(run, found, _accumulation(config))
    if isinstance(repeated, str):
        raise Unmeasured(repeated)
    delay = delay_of(run, ledger, found, found["transfer_us"].where(repeated, 0.0))
    if searches and unused in (None, 0) and not repeated.any():
        search = search_us(run)
        raise ConfigHint(_SEARCH_HINT.format(cost="" if math.isnan(search) else f" for {text.duration(search)}"))
    return delay.assign(repeated_calls=int(repeated.sum()), calls=len(found))


def _accumulation(config: Mapping[str, Any]) -> int | None:
    if not has_knob(config, "gradient_accumulation_steps"):
        return None
    value = value_of(config, "gradient_accumulation_steps")
    return value if type(value) is int and value > 0 else None


def _without_calls(config: Mapping[str, Any], steps: pd.DataFrame, *, searches: bool) -> Unmeasured | ConfigHint:
    """What the config alone tells."""
    seen = steps["micro_batches"].max()
    accumulation = max(_accumulation(config) or 1, 1 if pd.isna(seen) else int(seen))
    each = has_knob(config, "sync_every_micro_batch") and value_of(config, "sync_every_micro_batch") is True
    if accumulation > 1 and each:
        return ConfigHint(
            f"sync_every_micro_batch is on with {accumulation} micro-batches an update: {accumulation - 1} of {accumulation} "
            "exchanges are not needed; record(trace=5) shows what they cost"
        )
    if searches:
        return ConfigHint(_SEARCH_HINT.format(cost=""))
    return Unmeasured("no call of a collective was recorded: record(trace=5) on every rank")
