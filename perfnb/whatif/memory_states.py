"""What ranks share out of a training's memory (ZeRO, FSDP), and what data parallelism adds: arithmetic on a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

COMMUNICATION: Final = "communication"
"""Category of buckets and of gathered parameters."""

SHARED_FROM: Final[Mapping[str, int]] = {"optimizer_state": 1, "gradient": 2, "parameter": 3}
"""Category to the first ZeRO stage that shares it out (Rajbhandari et al. 2020, section 5); FSDP's full shard is stage 3."""

FIRST_SHARED_GRADIENTS: Final = 2
FIRST_SHARED_PARAMETERS: Final = 3
DDP_BUCKET_BYTES: Final = 25 << 20  # torch/nn/parallel/distributed.py: bucket_cap_mb is 25 by default
SHARING_NOTE: Final = (
    "what ranks share out is arithmetic, not measured: each shard is a part of equal size, of stage 3 the two largest units are "
    "gathered at once, gradients are reduced in a bucket as large as the largest unit"
)
DATA_PARALLEL_NOTE: Final = (
    "DistributedDataParallel keeps buckets as large as all gradients; with gradient_as_bucket_view they are the gradients"
)

_OF_STEP: Final = "temporary of the optimizer"

Event = tuple[int, int, str]
"""Number of a storage, its bytes (negative: freed), the phase."""


def shared_out(
    events: Sequence[Event],
    category: Mapping[int, str],
    *,
    zero_stage: int,
    world_size: int,
    unit_bytes: Sequence[int],
    is_bucket_view: bool = False,
) -> tuple[list[Event], dict[int, str]]:
    """Events of one of several ranks, from those of a training on one.

    Parameters
    ----------
    events
        Storages made and freed, in their order.
    category
        Number of a storage to what it holds.
    zero_stage
        0: DistributedDataParallel; 1: the optimizer's state is shared out; 2: gradients too; 3: parameters too.
    world_size
        Ranks.
    unit_bytes
        Parameters of each unit that is gathered at once, the largest first; not empty for stage 3.
    is_bucket_view
        Whether gradients of DistributedDataParallel are views of its buckets.

    Returns
    -------
    tuple
        Events and categories with the buckets and gathered units that come to it.

    Examples
    --------
    A parameter of 80 bytes and its state, on four ranks, the state shared out::

        >>> events = [(0, 80, "init"), (1, 80, "backward"), (2, 80, "optimizer"), (1, -80, "optimizer")]
        >>> kinds = {0: "parameter", 1: "gradient", 2: "optimizer_state"}
        >>> shared_out(events, kinds, zero_stage=1, world_size=4, unit_bytes=(), is_bucket_view=True)[0]
        [(0, 80, 'init'), (3, 80, 'init'), (2, 20, 'optimizer')]
    """
    if world_size == 1:
        return list(events), dict(category)
    kinds = dict(category)
    parts = {kind: world_size for kind, first in SHARED_FROM.items() if zero_stage >= first}
    if zero_stage:  # the optimizer works on its shard alone
        parts[_OF_STEP] = world_size
    of_step = {number for number, size, phase in events if phase == "optimizer" and size > 0 and number not in kinds}
    part = {number: parts.get(_OF_STEP if number in of_step else kinds.get(number, ""), 1) for number, _, _ in events}
    own = [(number, _shard(size, part[number]), phase) for number, size, phase in events]
    next_number = max((number for number, _, _ in events), default=-1) + 1
    if zero_stage < FIRST_SHARED_GRADIENTS:
        made = _with_buckets(own, kinds, next_number)
        kinds[next_number] = COMMUNICATION
        return [one for one in made if not (is_bucket_view and kinds.get(one[0]) == "gradient")], kinds
    bucket = unit_bytes[0] if unit_bytes else DDP_BUCKET_BYTES
    made = _during(own, ("backward",), bucket, next_number)
    kinds[next_number] = COMMUNICATION
    if zero_stage >= FIRST_SHARED_PARAMETERS:
        made = _during(made, ("forward", "backward"), sum(unit_bytes[:2]), next_number + 1)
        kinds[next_number + 1] = COMMUNICATION
    return made, kinds


def _shard(size: int, parts: int) -> int:
    """One of so many equal parts of some bytes, rounded up; of freed bytes the same."""
    whole = -(-abs(size) // parts)
    return whole if size >= 0 else -whole


def _with_buckets(events: Sequence[Event], kinds: Mapping[int, str], number: int) -> list[Event]:
    """Buckets as large as all gradients, made before the first step."""
    total = most = 0
    for one, size, _ in events:
        if kinds.get(one) == "gradient":
            total += size
            most = max(most, total)
    first = next((place for place, one in enumerate(events) if one[2] != "init"), len(events))
    return [*events[:first], (number, most, "init"), *events[first:]]


def _during(events: Sequence[Event], phases: tuple[str, ...], size: int, number: int) -> list[Event]:
    """The events with a storage that is there as long as they are of some phases."""
    made: list[Event] = []
    is_there, last = False, ""
    for event in events:
        if (event[2] in phases) != is_there:
            is_there = not is_there
            made.append((number, size if is_there else -size, event[2] if is_there else last))
        last = event[2]
        made.append(event)
    return made
