"""Detector of devices that slowed their clocks down because of heat or power supply."""

from __future__ import annotations

from typing import Final, cast

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector, example

# nvml.h, nvmlClocksEventReason*: hardware slowdown 0x08, software thermal slowdown 0x20, hardware thermal slowdown 0x40,
# hardware power brake 0x80. The software power cap, 0x04, is how a device usually runs at full load: alone it is none.
_BITS: Final = 0x08 | 0x20 | 0x40 | 0x80
_LEAST_SHARE: Final = 0.20  # of busy samples: a prior, not validated
_SLOWER: Final = 0.9  # of the clock in busy samples without these bits: a prior, not validated


def _samples(rows: str) -> str:
    return "rank gpu time_us utilization_share sm_clock_mhz throttle_reasons\n" + rows


@detector(
    family="device compute",
    title="Clocks slowed down by heat or power supply",
    claims=("compute",),
    tier=3,
    injected_by="recorded_clocks",
    recorded_only_when="not validated on a GPU: no recorded run of ours holds samples of a throttled device",
    source="priors, not validated: bits of nvml.h in 20 % of busy samples, clocks below .9 of the median without them",
    not_to_confuse_with=("full_precision_math", "slow_kernels", "underfilled_gpu", "layout_conversion"),
    examples=(
        example(
            "GPU 0 runs at 800 of 1000 MHz in step 8, too hot: a fifth of its compute; the device of rank 1 does not",
            lost_share=0.05,
            signals=("gpu_samples",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100
                     1    7    0        100
                     1    8    100      100""",
            device_ops="""rank device stream kind    name start_us duration_us
                          0    0      7      compute gemm 0        200
                          1    1      7      compute gemm 0        200""",
            gpu_samples=_samples("0 0 20 1 1000 0\n0 0 60 1 1000 4\n0 0 150 1 800 32\n1 1 50 1 1000 0\n1 1 150 1 1000 0"),
        ),
        example(
            "the power cap alone is no throttling, however low the clock",
            lost_share=0.0,
            signals=("gpu_samples",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            device_ops="""rank device stream kind    name start_us duration_us
                          0    0      7      compute gemm 0        200""",
            gpu_samples=_samples("0 0 50 1 1000 0\n0 0 150 1 500 4"),
        ),
        example(
            "950 of 1000 MHz is not below nine tenths",
            lost_share=0.0,
            signals=("gpu_samples",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            device_ops="""rank device stream kind    name start_us duration_us
                          0    0      7      compute gemm 0        200""",
            gpu_samples=_samples("0 0 50 1 1000 0\n0 0 150 1 950 64"),
        ),
        example(
            "one of six busy samples is less than a fifth of them",
            lost_share=0.0,
            signals=("gpu_samples",),
            steps="""rank step start_us duration_us
                     0    7    0        100
                     0    8    100      100""",
            device_ops="""rank device stream kind    name start_us duration_us
                          0    0      7      compute gemm 0        200""",
            gpu_samples=_samples("\n".join([*(f"0 0 {20 * n} 1 1000 0" for n in range(5)), "0 0 150 1 500 8"])),
        ),
    ),
)
def clock_throttling(ledger: pd.DataFrame, gpu_samples: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Compute time that a device would have saved at its usual clock.

    Fires if the driver names heat or power supply (not the power cap) in a fifth of the busy samples or more, and the clock
    there is below .9 of its median in the other busy samples; the loss of a step is its compute x (1 - f / f_ref), f being the
    clock in the sample nearest to the step's middle. It matters because cooling, or another machine, gives that time back. It
    cannot see throttling between samples, once a second. Not validated on a GPU.
    """
    compute = ledger[ledger["part"].eq("compute")]
    if compute.empty:
        message = "no device work was recorded in the steps"
        raise Unmeasured(message)
    samples = gpu_samples[gpu_samples["sm_clock_mhz"].notna() & gpu_samples["throttle_reasons"].notna()]
    busy = samples[samples["utilization_share"] > 0]
    if busy.empty:
        message = "no sample of a busy GPU holds its clock and why it is limited: the driver tells neither"
        raise Unmeasured(message)
    bits = busy["throttle_reasons"].to_numpy(dtype=np.int64) & _BITS
    busy = busy.assign(is_throttled=bits > 0, device=busy["gpu"].fillna(-1).astype("int64"))
    middles = steps.assign(middle_us=steps["start_us"] + steps["duration_us"] / 2).set_index(["rank", "step"])["middle_us"]
    rows = []
    for key, own in compute.assign(device=compute["device"].fillna(-1).astype("int64")).groupby(["rank", "device"]):
        rank, device = cast("tuple[int, int]", key)
        mine = _of_device(busy[busy["rank"].eq(rank)], device).sort_values("time_us")
        slow = mine[mine["is_throttled"]]
        usual = mine.loc[~mine["is_throttled"], "sm_clock_mhz"].median()
        if len(slow) < _LEAST_SHARE * len(mine) or slow.empty:
            continue
        if np.isnan(usual):
            message = "every busy sample was throttled, so the usual clock is not known"
            raise Unmeasured(message)
        if slow["sm_clock_mhz"].median() >= _SLOWER * usual:
            continue
        rows.append(_lost(own, mine, float(usual), middles))
    empty = pd.DataFrame({"rank": [], "step": [], "lost_us": []}).astype({"rank": int, "step": int, "lost_us": float})
    return pd.concat(rows) if rows else empty


def _lost(compute: pd.DataFrame, samples: pd.DataFrame, usual_mhz: float, middles: pd.Series) -> pd.DataFrame:
    """Compute of each step of one device x what the clock of the nearest sample lacks, where that sample was throttled."""
    moment = middles.reindex(pd.MultiIndex.from_frame(compute[["rank", "step"]])).to_numpy(dtype=np.float64)
    times = samples["time_us"].to_numpy(dtype=np.float64)
    after = np.clip(np.searchsorted(times, moment), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(times[before] - moment) <= np.abs(times[after] - moment), before, after)
    clock = samples["sm_clock_mhz"].to_numpy(dtype=np.float64)[nearest]
    throttled = samples["is_throttled"].to_numpy(dtype=bool)[nearest]
    share = np.where(throttled, np.clip(1.0 - clock / usual_mhz, 0.0, 1.0), 0.0)
    return compute.assign(sm_clock_mhz=clock, usual_mhz=usual_mhz, lost_us=compute["time_us"] * share)


def _of_device(samples: pd.DataFrame, device: int) -> pd.DataFrame:
    """Samples of one device; of the only GPU where the driver counts otherwise than the process."""
    named = samples[samples["device"].eq(device)]
    return samples if named.empty and len(set(samples["device"])) == 1 else named
