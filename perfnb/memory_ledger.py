"""Which blocks hold a memory at one moment, by category, phase and stack, and what it grew by between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import LedgerError
from perfnb.memory_ledger_operators import category_of_operators, operators_of
from perfnb.prediction import Unknown
from perfnb.run import Run

BEFORE_RECORDING: Final = "before the recording"
"""Group of the bytes whose allocation was not recorded."""

NOT_TOLD: Final = "not told"
"""Group of blocks of which the recording does not say this."""

_ALLOCS: Final = ("existing", "alloc")
_CHANGES: Final = (*_ALLOCS, "free_requested")
_NEEDS: Final = "a memory snapshot (perfnb.read_memory_snapshot), or a trace recorded with profile_memory=True"
_NAMES: Final = ("category", "phase", "stack")
_COLUMNS: Final = ("time_us", "sequence", "address", "bytes", *_NAMES)
_NEVER: Final = np.iinfo(np.int64).max

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class HeldBlocks:
    """The blocks that are allocated at one moment.

    Attributes
    ----------
    total_bytes
        Allocated in all: `unseen_bytes` and the blocks.
    unseen_bytes
        Allocated before the recording began, so that no row tells of it.
    is_at_least
        Whether more may have been allocated before the recording: its totals were not recorded, and `unseen_bytes` counts only
        what was freed later.
    time_us, sequence
        Of the row after which this holds; NaN and None where not recorded.
    blocks
        One row per block, the largest first: time_us, sequence, address, bytes, category, phase and stack. A trace has no stacks:
        there `stack` is the operators that ran at the time, innermost first. Where the recording names no category it is told by
        the stack: existing, optimizer, backward, or what is left ("forward or autograd": autograd's threads have no stack).
    """

    total_bytes: int
    unseen_bytes: int
    is_at_least: bool
    time_us: float
    sequence: int | None
    blocks: pd.DataFrame


def memory_peak(run: Run, rank: int = 0, device: int | Literal["host"] | None = None) -> HeldBlocks | Unknown:
    """The blocks at the first moment with the most allocated bytes.

    Parameters
    ----------
    run
        A memory snapshot, or a trace that was recorded with `profile_memory=True`.
    rank
        Whose memory.
    device
        Number of the device, or "host"; None: the one device that was recorded, else the host.
    """
    rows = memory_changes(run, rank, device)
    if isinstance(rows, Unknown):
        return rows
    return _held(run, rows, None)


def memory_at(
    run: Run,
    *,
    time_us: float | None = None,
    sequence: int | None = None,
    rank: int = 0,
    device: int | Literal["host"] | None = None,
) -> HeldBlocks | Unknown:
    """The blocks that are allocated after the last row of a moment, which is given by time or by sequence.

    Parameters
    ----------
    run
        A memory snapshot, or a trace that was recorded with `profile_memory=True`.
    time_us, sequence
        The moment; one of them.
    rank, device
        Whose memory, as in `memory_peak`.
    """
    if (time_us is None) == (sequence is None):
        message = "give the moment as time_us or as sequence"
        raise ValueError(message)
    rows = memory_changes(run, rank, device)
    if isinstance(rows, Unknown):
        return rows
    name, moment = ("time_us", time_us) if sequence is None else ("sequence", sequence)
    if rows[name].isna().any():
        return Unknown(f"rows of this recording have no {name}", "the other of time_us and sequence")
    before = np.flatnonzero(rows[name].le(moment).to_numpy(dtype=bool))
    if not len(before):
        return Unknown(f"nothing was recorded up to {name} {moment}: the first row has {rows[name].iloc[0]}", "a later moment")
    return _held(run, rows, int(before[-1]))


def memory_by(held: HeldBlocks, by: str | Sequence[str] = "category") -> pd.DataFrame:
    """What holds the memory; the groups sum to its total.

    Parameters
    ----------
    held
        `memory_peak(run)` or `memory_at(run, ...)`.
    by
        One or several of category, phase and stack.

    Returns
    -------
    pandas.DataFrame
        One row per group, the largest first: the columns of `by`, bytes, share (of the total) and blocks (their number). What
        was allocated before the recording is a group, with 0 blocks.

    Raises
    ------
    LedgerError
        If the groups do not sum to the total.
    """
    names = [by] if isinstance(by, str) else list(by)
    wrong = [name for name in names if name not in _NAMES]
    if wrong or not names:
        message = f"memory cannot be grouped by {', '.join(wrong) or 'nothing'}: there are {', '.join(_NAMES)}"
        raise ValueError(message)
    plain = held.blocks.assign(**{name: held.blocks[name].astype(object).fillna(NOT_TOLD) for name in names})
    found = plain.groupby(names, as_index=False, sort=False).agg(bytes=("bytes", "sum"), blocks=("bytes", "size"))
    if held.unseen_bytes:
        unseen = dict.fromkeys(names, BEFORE_RECORDING) | {"bytes": held.unseen_bytes, "blocks": 0}
        found = pd.concat([found, pd.DataFrame([unseen])], ignore_index=True)
    if int(found["bytes"].sum()) != held.total_bytes:
        message = f"the groups by {', '.join(names)} sum to {found['bytes'].sum():,} bytes, the memory holds {held.total_bytes:,}"
        raise LedgerError(message)
    found = found.assign(share=found["bytes"] / max(held.total_bytes, 1)).astype({"bytes": "int64", "blocks": "int64"})
    return found.sort_values("bytes", ascending=False, kind="stable", ignore_index=True)[[*names, "bytes", "share", "blocks"]]


def memory_growth(before: HeldBlocks, after: HeldBlocks, by: str | Sequence[str] = "stack") -> pd.DataFrame:
    """What memory grew by between two moments of one recording, or of two snapshots of one job; the groups sum to the growth.

    Parameters
    ----------
    before, after
        `memory_at(run, ...)` of the two.
    by
        One or several of category, phase and stack.

    Returns
    -------
    pandas.DataFrame
        One row per group that changed, the one that grew most first: the columns of `by`, before_bytes, after_bytes,
        growth_bytes (negative: it shrank) and growth_blocks.

    Raises
    ------
    LedgerError
        If the groups do not sum to the growth.
    """
    names = [by] if isinstance(by, str) else list(by)
    both = memory_by(before, names).merge(memory_by(after, names), on=names, how="outer", suffixes=("_before", "_after"))
    sizes = [f"{what}_{when}" for what in ("bytes", "blocks") for when in ("before", "after")]
    both = both.assign(**{name: both[name].fillna(0).astype("int64") for name in sizes})
    both = both.assign(
        before_bytes=both["bytes_before"],
        after_bytes=both["bytes_after"],
        growth_bytes=both["bytes_after"] - both["bytes_before"],
        growth_blocks=both["blocks_after"] - both["blocks_before"],
    )
    grown = after.total_bytes - before.total_bytes
    if int(both["growth_bytes"].sum()) != grown:
        message = f"the groups by {', '.join(names)} grew by {both['growth_bytes'].sum():,} bytes, the memory by {grown:,}"
        raise LedgerError(message)
    changed = both[both["growth_bytes"].ne(0) | both["growth_blocks"].ne(0)]
    wanted = [*names, "before_bytes", "after_bytes", "growth_bytes", "growth_blocks"]
    return changed.sort_values("growth_bytes", ascending=False, kind="stable", ignore_index=True)[wanted]


def memory_changes(run: Run, rank: int, device: int | Literal["host"] | None) -> pd.DataFrame | Unknown:
    """Rows of one memory that change its allocated bytes, in their order."""
    rows = run.allocations
    if rows.empty:
        return Unknown(run.missing.get("allocations", "no single allocations were recorded"), _NEEDS)
    rows = rows[rows["rank"].eq(rank)]
    devices = sorted(rows["device"].dropna().unique())
    if device is None and len(devices) > 1:
        return Unknown(f"rank {rank} used several devices: {', '.join(map(str, devices))}", "device, the number of one")
    chosen = (devices[0] if devices else "host") if device is None else device
    rows = rows[rows["device"].isna() if chosen == "host" else rows["device"].eq(chosen).fillna(value=False)]
    rows = rows[rows["action"].isna() | rows["action"].isin(_CHANGES)]
    rows = rows[rows["bytes"].ne(0)]
    if rows.empty:
        ranks = ", ".join(map(str, sorted(run.allocations["rank"].unique())))
        return Unknown(f"no allocations of rank {rank}, device {chosen} were recorded; there are ranks {ranks}", _NEEDS)
    if rows["sequence"].notna().all():
        rows = rows.sort_values("sequence", kind="stable")
    return rows.reset_index(drop=True)


def _held(run: Run, rows: pd.DataFrame, moment: int | None) -> HeldBlocks:
    """What is held after the row `moment`; None: after the first one that reaches the peak."""
    size = rows["bytes"].to_numpy(dtype=np.int64)
    ends, unmatched = lifetimes(rows["address"].to_numpy(dtype=np.int64, na_value=-1), size)
    change = np.where(size > 0, size, 0)
    freed = np.flatnonzero((size > 0) & (ends < _NEVER))
    np.subtract.at(change, ends[freed], size[freed])
    unseen_change = np.where(unmatched, size, 0)
    at_start, is_known = bytes_at_start(rows, size, unseen_change)
    unseen, seen = at_start + np.cumsum(unseen_change), np.cumsum(change)
    place = int(np.argmax(unseen + seen)) if moment is None else moment
    is_live = (size > 0) & (np.arange(len(size)) <= place) & (ends > place)
    blocks = named_blocks(run, rows, rows.loc[is_live, list(_COLUMNS)])
    blocks = blocks.sort_values("bytes", ascending=False, kind="stable", ignore_index=True)
    total = int(unseen[place] + seen[place])
    if int(blocks["bytes"].sum()) + int(unseen[place]) != total:
        message = f"{len(blocks)} blocks sum to {blocks['bytes'].sum():,} bytes of {total - int(unseen[place]):,} allocated"
        raise LedgerError(message)
    sequence = rows["sequence"].iloc[place]
    when = None if pd.isna(sequence) else int(sequence)
    return HeldBlocks(total, int(unseen[place]), not is_known, float(rows["time_us"].iloc[place]), when, blocks)


def lifetimes(address: Integers, size: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """Row at which each allocation ends, and which frees are of blocks that no row allocates.

    A block ends where its address is freed, or handed out again: then the row of its free was lost.
    """
    order = np.lexsort((np.arange(len(address)), address))
    same = address[order[1:]] == address[order[:-1]]
    ends = np.full(len(address), _NEVER, dtype=np.int64)
    follows = np.flatnonzero(same)
    ends[order[follows]] = order[follows + 1]
    has_alloc = np.zeros(len(address), dtype=bool)
    has_alloc[order[follows + 1]] = size[order[follows]] > 0
    return ends, (size < 0) & ~has_alloc


def bytes_at_start(rows: pd.DataFrame, size: Integers, unseen_change: Integers) -> tuple[int, bool]:
    """Bytes that were allocated before the first row, and whether that is all."""
    least = -int(unseen_change.sum())
    total = rows["allocated_bytes"].iloc[0]
    if rows["action"].isin(_ALLOCS).any() and rows["sequence"].lt(0).fillna(value=False).any():
        return least, True  # a snapshot: the state before the first event is among the rows
    if pd.isna(total):
        return least, False
    return max(int(total) - int(size[0]), least), True


def named_blocks(run: Run, rows: pd.DataFrame, blocks: pd.DataFrame) -> pd.DataFrame:
    """Blocks with their category and, of a trace, the operators that made them."""
    blocks = _with_operators(run, rows, blocks)
    return blocks.assign(category=_categories(blocks))


def _with_operators(run: Run, rows: pd.DataFrame, blocks: pd.DataFrame) -> pd.DataFrame:
    """Blocks of a trace with the operators that made them in place of a stack, which a trace has not."""
    if rows["action"].notna().any() or blocks["stack"].notna().any() or run.host_ops.empty:
        return blocks
    own = run.host_ops[run.host_ops["rank"].eq(int(rows["rank"].iloc[0]))]
    chain = operators_of(blocks["time_us"], own)
    return blocks.assign(
        stack=chain, category=blocks["category"].astype(object).fillna(chain.map(category_of_operators, "ignore"))
    )


def _categories(blocks: pd.DataFrame) -> pd.Series:
    """What each block holds: as recorded, else by its stack."""
    known = blocks["category"].astype(object)
    stack = blocks["stack"].astype("category")
    by_stack = {text: _category_of(str(text)) for text in stack.cat.categories}
    guessed = stack.map(by_stack).astype(object)
    guessed = guessed.mask(blocks["sequence"].lt(0).fillna(value=False).astype(bool), "existing")
    return known.where(known.notna(), guessed).fillna(NOT_TOLD)


def _category_of(stack: str) -> str:
    """Category by the frames: gradients that autograd makes on its own threads have none, so they are told from nothing else."""
    for frame in stack.split(";"):
        file, _, name = frame.rpartition(":")
        if name == "step" and "optim" in file:
            return "optimizer"
        if name.endswith("_engine_run_backward"):
            return "backward"
    return "forward or autograd" if stack else NOT_TOLD
