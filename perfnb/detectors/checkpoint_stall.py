"""Detector of steps that stand still while the training writes its state to disk."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.sampled_steps import rate_in_steps
from perfnb.detector import Unmeasured, detector, example

_LEAST_SHARE: Final = 0.10  # of a saving step, what it has more in `other` than steps that save nothing; recorded .23 to .28
_LEAST_BYTES_PER_S: Final = 1e6  # own writes; recorded 15 to 18 MB/s with saving, 0.01 to 0.08 without
_WAITS_FROM: Final = 0.2  # of `other` blocked: writing that is forced to disk waits, computing of metrics does not; a prior

_STEPS: Final = "rank step start_us duration_us\n" + "\n".join(
    f"{rank} {step} {step * 1_000_000} 1000000" for rank in (0, 1) for step in range(6)
)


def _phases(saving: tuple[int, int, int], plain: tuple[int, int, int], every: int = 2) -> str:
    """Steps of a second, of which every so many one saves: cpu, runqueue and blocked of `other` in ms."""
    rows = []
    for rank in (0, 1):
        for step in range(6):
            cpu, runqueue, blocked = saving if step % every == 1 else plain
            own = cpu + runqueue + blocked
            rows.append(f"{rank} {step} forward {(1000 - own) * 1000} {(1000 - own) * 1000} 0 0")
            rows.append(f"{rank} {step} other {own * 1000} {cpu * 1000} {runqueue * 1000} {blocked * 1000}")
    return "rank step phase wall_us cpu_us runqueue_us blocked_us\n" + "\n".join(rows)


def _samples(bytes_per_s: int) -> str:
    rows = [f"{rank} {second * 1_000_000} {bytes_per_s if second else '-'}" for rank in (0, 1) for second in range(7)]
    return "rank time_us write_bytes_per_s\n" + "\n".join(rows)


@detector(
    family="host",
    title="Saving the training's state",
    claims=("other.cpu", "other.blocked", "other.wall", "idle.python"),
    tier=2,
    injected_by="frequent_save",
    source="recorded: saving takes .23 to .28 of the step, with own writes of 15 to 18 MB/s; without saving < .1 MB/s",
    not_to_confuse_with=("python_overhead", "garbage_collection_pauses", "cpu_contention", "data_stall"),
    recorded_only_when="the detection benchmark saves and syncs every k-th step",
    examples=(
        example(
            "every other step has 420 ms more than the others' 20 ms: 3 of 5 steps, 400 of 1000 ms",
            lost_share=0.24,
            steps=_STEPS,
            phases=_phases((120, 0, 300), (20, 0, 0)),
            host_samples=_samples(2_000_000),
        ),
        example(
            "each step waits for the disk, so each saves: all of other but its waiting for a core",
            lost_share=0.30,
            steps=_STEPS,
            phases=_phases((100, 50, 200), (100, 50, 200)),
            host_samples=_samples(2_000_000),
        ),
        example(
            "logging of 300 ms at each step is not what saving takes: 100 ms more in 3 of 5 steps are, in steps that compute",
            lost_share=0.24,
            steps=_STEPS,
            phases=_phases((350, 0, 350), (300, 0, 0)),
            host_samples=_samples(2_000_000),
        ),
        example(
            "Python code that writes 0.9 MB/s saves no state",
            lost_share=0.0,
            steps=_STEPS,
            phases=_phases((420, 0, 0), (20, 0, 0)),
            host_samples=_samples(900_000),
        ),
        example(
            "steps with 9 % of them more in other save nothing",
            lost_share=0.0,
            steps=_STEPS,
            phases=_phases((60, 0, 40), (10, 0, 0)),
            host_samples=_samples(2_000_000),
        ),
        example(
            "saves of 120 ms in 2 of 5 steps stay under the threshold",
            lost_share=0.048,
            steps=_STEPS,
            phases=_phases((160, 0, 0), (40, 0, 0), every=3),
            host_samples=_samples(2_000_000),
        ),
    ),
)
def checkpoint_stall(steps: pd.DataFrame, ledger: pd.DataFrame, phases: pd.DataFrame, host_samples: pd.DataFrame) -> pd.DataFrame:
    """Time in which the training stands still to write its state, such as a checkpoint, to disk.

    Steps that save have a tenth of the step more between the phases than others have, while the process writes at least
    1 MB/s; the loss is what they have more, without waiting for a core. Where even the steps with the least wait there for
    long, each step saves. It matters because saving less often, or in the background, gives that time back. It cannot tell a
    checkpoint from other files written by the loop at the same place, nor see files that lie in memory (tmpfs). Samples of
    writing come once a second: of shorter steps it cannot say which one wrote.
    """
    other = phases[phases["phase"].eq("other")].merge(ledger[["rank", "step"]].drop_duplicates(), on=["rank", "step"])
    own = (other["cpu_us"] + other["blocked_us"]).fillna(other["wall_us"])
    other = other.assign(other_us=own).groupby(["rank", "step"], as_index=False)[["other_us", "blocked_us"]].sum()
    used = steps.merge(ledger[["rank", "step"]].drop_duplicates(), on=["rank", "step"])
    used = used.merge(other, how="left", on=["rank", "step"]).fillna({"other_us": 0.0, "blocked_us": 0.0})
    used = used.merge(_own_us(ledger), on=["rank", "step"])
    written = rate_in_steps(used, host_samples, "write_bytes_per_s")
    if np.isnan(written).all():
        message = "what the process wrote is not known: it is sampled once a second, on Linux"
        raise Unmeasured(message)
    used = used.assign(written_bytes_per_s=written)
    is_saving = _is_saving(used)
    plain = used.loc[~is_saving].groupby("rank")["other_us"].median().reindex(used["rank"].unique(), fill_value=0.0)
    used = used.assign(lost_us=(used["other_us"] - used["rank"].map(plain)).clip(lower=0.0), is_saving=is_saving)
    saving = used[used["is_saving"]]
    rates = saving.groupby("rank")["written_bytes_per_s"].mean()
    found = saving[saving["rank"].isin(rates.index[rates.ge(_LEAST_BYTES_PER_S)])]
    return found[["rank", "step", "lost_us", "other_us", "written_bytes_per_s"]]


def _own_us(ledger: pd.DataFrame) -> pd.DataFrame:
    """Time of each step without waiting for a core: others that take the cores make no step a save. Devices are averaged."""
    own = ledger[~ledger["part"].str.endswith(".runqueue")]
    per_device = own.groupby(["rank", "step", "device"], dropna=False)["time_us"].sum()
    return per_device.groupby(["rank", "step"]).mean().rename("own_us").reset_index()


def _is_saving(used: pd.DataFrame) -> pd.Series:
    """Steps that save: those with more `other` than the tenth with the least; all of a rank, where even those wait for disk."""
    ranks = used["rank"]
    least = used.groupby("rank")["other_us"].transform(lambda each: each.quantile(0.1))
    is_large = used["other_us"].ge(least + _LEAST_SHARE * used["own_us"])
    plain = used[~is_large].groupby("rank")[["other_us", "blocked_us", "own_us"]].sum()
    is_long = plain["other_us"].ge(_LEAST_SHARE * plain["own_us"])
    all_save = is_long & plain["blocked_us"].ge(_WAITS_FROM * plain["other_us"])
    return is_large | ranks.map(all_save).fillna(value=False).astype(bool)
