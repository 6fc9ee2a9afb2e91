"""How a run stands, for the first lines of a panel: failed, killed, still running, in part, without torch or without a GPU."""

from __future__ import annotations

from typing import Final

from perfnb import text
from perfnb.document import Block, Line, Verdict
from perfnb.record.recorder import NO_TORCH
from perfnb.run import Run

_LONGEST: Final = 200


def state_blocks(run: Run) -> list[Block]:
    """What people have to know of a run before they read its numbers; nothing where it is whole.

    Examples
    --------
    >>> from perfnb.run import Recording
    >>> print(state_blocks(Run(recordings=(Recording(0, "failed", "ZeroDivisionError: x"),)))[0].plain())
    perfnb  [x] The run failed (ZeroDivisionError: x). What follows is of the 0 steps before it
    """
    blocks: list[Block] = []
    steps = f"the {text.count(run.steps['step'].nunique(), 'step')} before it"
    for state in ("failed", "killed", "running"):
        own = [each for each in run.recordings if each.state == state]
        if not own:
            continue
        whose = "The run" if len(run.recordings) == 1 else f"{text.count(len(own), 'rank')} of {len(run.recordings)}"
        reason = f" ({text.clean(own[0].reason, _LONGEST)})" if own[0].reason else ""
        if state == "failed":
            blocks.append(Verdict("x", f"{whose} failed{reason}. What follows is of {steps}"))
        elif state == "killed":
            blocks.append(Verdict("x", f"{whose} was killed. What follows is of {steps}"))
        else:
            blocks.append(Line("state", f"{whose} {'is' if len(own) == 1 else 'are'} still recording: this is what there was"))
    ranks = len(run.ranks)
    if run.world_size and 0 < ranks < run.world_size:
        blocks.append(Line("ranks", f"{ranks} of {run.world_size} were read: what compares ranks is not measured"))
    if NO_TORCH in run.notes:
        blocks.append(Line("torch", NO_TORCH))
    unsampled = run.missing.get("gpu_samples")
    if run.recordings and unsampled and not run.uses_device:
        blocks.append(Line("GPU", f"none was seen ({text.clean(unsampled, _LONGEST)}): detectors of the device are not measured"))
    return blocks
