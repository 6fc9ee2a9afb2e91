"""Detector of computing on padding: tokens that stand in a batch only to make its sequences equally long."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from perfnb.detector import Unmeasured, detector, example

_SMALLEST_SHARE: Final = 0.10  # of all tokens (a prior)
_LARGEST_UNKNOWN_SHARE: Final = 0.20  # detectors.md 1.5: what misses in more than a fifth of the rows is not measured
_COMPUTE: Final = ("compute", *(f"{phase}.{kind}" for phase in ("forward", "backward") for kind in ("cpu", "blocked", "wall")))


def _text(tokens: tuple[int, int], *, compute: int = 80, padded: int = 100, ranks: int = 1) -> dict[str, Any]:
    """Two steps of 100 us: how many of the padded tokens of each are real, and how long forward and backward take."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    training = ["rank step time_us tokens padded_tokens"]
    for rank in range(ranks):
        for step, real in enumerate(tokens):
            steps.append(f"{rank} {step} {100 * step} 100")
            half, rest = compute / 2, 100 - compute
            phases += [f"{rank} {step} {phase} {half} {half} 0 0" for phase in ("forward", "backward")]
            phases.append(f"{rank} {step} other {rest} 0 {rest} 0")
            training.append(f"{rank} {step} {100 * step + 99} {real} {padded}")
    return {"steps": "\n".join(steps), "phases": "\n".join(phases), "training": "\n".join(training)}


@detector(
    family="data",
    title="Computing on padding",
    claims=_COMPUTE,
    upper_bound=True,
    injected_by="padded_text",
    recorded_only_when="the detection benchmark injects it",
    source="a tenth of all tokens is a prior; torch_tb_profiler 0.4.3 reports above 5 % of a step",
    not_to_confuse_with=("data_stall", "slow_sample_read", "slow_transform", "exposed_communication"),
    examples=(
        example(
            "half of the tokens of one step are padding, a quarter of the other: 40 and 20 of 80 us of computing",
            lost_share=0.30,
            **_text((50, 75), ranks=2),
        ),
        example("a tenth is padding", lost_share=0.08, **_text((90, 90))),
        example(
            "a tenth is padding of a step that computes for 40 us: under the threshold",
            lost_share=0.04,
            **_text((90, 90), compute=40),
        ),
        example("less than a tenth is padding", lost_share=0.0, **_text((91, 90))),
        example(
            "a fifth of the tokens is padding: 12 of 60 us of the device's computing",
            lost_share=0.12,
            steps="rank step start_us duration_us\n0 0 0 100",
            training="rank step time_us tokens padded_tokens\n0 0 99 800 1000",
            device_ops="""rank device stream kind    name start_us duration_us
                          0    0      7      compute gemm 0        60
                          0    0      7      copy    DtoH 60       40""",
        ),
    ),
)
def padding_waste(ledger: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Time of forward and backward passes that is spent on padding.

    The loss is the share of padding among a step's tokens times its computing: at most that, since not all of a step grows with
    its tokens, and attention grows faster. It fires from a tenth of all tokens. It matters because samples of like length in one
    batch, or several in one sequence, need hardly any padding. It cannot count tokens itself: log `tokens` and `padded_tokens`
    of each step. Not validated on a GPU.
    """
    compute = (
        ledger[ledger["part"].isin(_COMPUTE)].groupby(["rank", "step", "device"], dropna=False, as_index=False)["time_us"].sum()
    )
    compute = compute.groupby(["rank", "step"], as_index=False)["time_us"].mean()
    tokens = training.groupby(["rank", "step"], as_index=False)[["tokens", "padded_tokens"]].sum(min_count=1)
    rows = compute.merge(tokens, how="left", on=["rank", "step"])
    known = rows[rows["tokens"].notna() & (rows["padded_tokens"] > 0)]
    if len(rows) - len(known) > _LARGEST_UNKNOWN_SHARE * len(rows) or known.empty:
        message = "tokens and padded_tokens of the steps are not known: recorder.log(tokens=..., padded_tokens=...) at each step"
        raise Unmeasured(message)
    if known["tokens"].sum() > (1.0 - _SMALLEST_SHARE) * known["padded_tokens"].sum():
        known = known.iloc[:0]
    share = (1.0 - known["tokens"] / known["padded_tokens"]).clip(0.0, 1.0)
    lost: pd.DataFrame = known.assign(padding_share=share, lost_us=share * known["time_us"])
    return lost
