"""Whether a setting of the allocator is worth suggesting: what a replay of the recorded requests says it saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.text import byte_size, share
from perfnb.whatif.allocator_replay import predict_allocator

LEAST_SAVED: Final = 0.02
"""Share of a device's memory (of the reserved peak, where that is not known) that a setting has to save."""


def why_not_setting(run: Run, changes: Mapping[str, Any]) -> str:
    """Why settings are not worth it on any device whose requests were recorded; empty where they are, or nothing was recorded.

    Parameters
    ----------
    run
        A run; of a memory snapshot the requests are replayed.
    changes
        Settings, by knob.

    Examples
    --------
    >>> why_not_setting(Run(), {"expandable_segments": True})
    ''
    """
    capacity = next((size for size in run.machine.device_memory_bytes if size > 0), None)
    devices = run.allocations[["rank", "device"]].dropna().drop_duplicates()
    found = []
    for rank, device in devices.astype("int64").itertuples(index=False):
        made = predict_allocator(run, changes, rank, device, capacity)
        if isinstance(made, Unknown):
            continue
        saved = made.before_reserved_bytes - made.after_reserved_bytes
        found.append((saved / max(capacity or made.before_reserved_bytes, 1), saved))
    if not found or max(found)[0] >= LEAST_SAVED:
        return ""
    part, saved = max(found)
    what = f"takes {byte_size(-saved)} more" if saved < 0 else f"saves {byte_size(saved)}"
    of = "" if saved < 0 else f" ({share(part)} of {'the device' if capacity else 'what was reserved'})"
    return f"a replay of the recorded requests says that it {what}{of}"
