"""What is known of each device op of a rank, and the moments at which a host thread had to wait: parts of the work graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from perfnb.whatif.host_lines import Bools, Floats, Integers

NONE: Final = -1
LAUNCH, QUEUE, DEPENDENCY, UNKNOWN = range(4)
"""What the start of a device op came after: its launch call, the op before it in its stream, an op of another stream; or
nothing that the trace tells."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceWork:
    """Device ops of one rank by start; all arrays have one value per op.

    Attributes
    ----------
    label
        Row in `run.device_ops`.
    start_us, end_us
        As recorded.
    lane
        Number of the stream.
    before
        Op before it in its stream, `NONE` for the first.
    call_us, call_end_us, thread
        Its launch call, NaN and `NONE` where none was recorded.
    source
        Op of another stream that it waited for, `NONE` where there is none.
    is_inferred
        Whether no record states that wait: the op ended just before, and nothing else explains the start.
    binding
        `LAUNCH`, `QUEUE`, `DEPENDENCY` or `UNKNOWN`.
    is_unexplained
        Whether it started later than its binding explains.
    call
        Row of the launch call in `run.host_ops`, `NONE` where none was recorded.
    usual_lag_us, least_lag_us
        Median and least time from a call to a start on an idle stream.
    """

    label: Integers
    start_us: Floats
    end_us: Floats
    lane: Integers
    before: Integers
    call_us: Floats
    call_end_us: Floats
    thread: Integers
    source: Integers
    is_inferred: Bools
    binding: Integers
    is_unexplained: Bools
    call: Integers
    usual_lag_us: float
    least_lag_us: float


class Turn(NamedTuple):
    """A moment at which a host thread went on because of something else than itself.

    Attributes
    ----------
    time_us
        When it went on.
    since_us
        When it began to wait: its own work until then is what the turn waits for too.
    source
        Device op (an end), or thread (a moment `source_us`) that it had to wait for.
    from_device
        Which of the two.
    source_us
        When that was done.
    """

    time_us: float
    since_us: float
    source: int
    from_device: bool
    source_us: float
