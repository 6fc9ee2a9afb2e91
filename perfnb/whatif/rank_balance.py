"""Equal work on every rank: the step then ends with the mean of the ranks' work, not with the most."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from perfnb.prediction import Change, Unknown
from perfnb.whatif.transform import transform

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

BALANCE_ERROR: Final = 0.05  # a prior (whatif contract, section 7)
_FEWEST_RANKS: Final = 2


@transform("balance_batches", model="rank_balance", error=BALANCE_ERROR, needs=("steps",))
def balance_batches(model: StepModel, change: Change) -> StepModel | Unknown:
    """Each step falls by the most work of a rank minus the mean over ranks; work is the time not spent with peers."""
    if change.after is not True:
        return Unknown("how unequal the ranks' work would become is not known", "a run with balance_batches=False")
    found = model.measured
    if found.missing_ranks or len(found.ranks) < _FEWEST_RANKS:
        read = ", ".join(str(rank.rank) for rank in found.ranks)
        return Unknown(f"only rank {read} was read, so the work of the others is not known", "traces of all ranks")
    if not any(rank.peers_us.any() for rank in found.ranks):
        return Unknown("the ranks never wait for one another, so no step ends with the slowest", "traces that hold collectives")
    texts = (
        "the work can be shared out evenly, and takes every rank as long as the mean of now",
        "communication keeps the time of the rank that waits least",
    )
    return replace(model, is_balanced=True).with_error("rank_balance", BALANCE_ERROR, *texts)
