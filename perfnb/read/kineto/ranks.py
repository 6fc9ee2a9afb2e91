"""Which file is which rank."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from perfnb.errors import RankConflictError

_LARGEST_RANK: Final = 2**31
_NUMBER_IN_NAME: Final = re.compile(r"(?:rank[-_]?|worker|TP-)(\d+)", re.IGNORECASE)


def ranks_of(paths: Sequence[Path], keys: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, ...], str | None]:
    """Rank of each file, and a note where ranks were assumed.

    A file's own `distributedInfo` counts first; then numbers in names, if they tell all files apart; then the order.

    Raises
    ------
    RankConflictError
        If two files have the same rank.

    Examples
    --------
    >>> ranks_of([Path("rank1.json"), Path("rank0.json")], [{}, {}])
    ((1, 0), "rank_source name: rank1.json, rank0.json does not say which rank it is, the number in the file's name counts")
    """
    own = [_whole(_info(each).get("rank")) for each in keys]
    found = [_NUMBER_IN_NAME.search(path.name) for path in paths]
    named = [int(match.group(1)) if match else None for match in found]
    tells_apart = None not in named and len(set(named)) == len(named)
    agrees = all(mine in (None, other) for mine, other in zip(own, named, strict=True))
    without = ", ".join(path.name for path, rank in zip(paths, own, strict=True) if rank is None)
    note = None
    if not without:
        ranks = own
    elif tells_apart and agrees:
        ranks = named
        note = f"rank_source name: {without} does not say which rank it is, the number in the file's name counts"
    elif any(rank is not None for rank in own):
        message = f"some files say which rank they are, but not {without}: read files of one job only"
        raise RankConflictError(message)
    elif len(paths) == 1:
        ranks = [0]
        note = f"rank_source assumed: {without} does not say which rank it is, 0 is assumed"
    else:
        ranks = list(range(len(paths)))
        note = f"rank_source assumed: {len(paths)} files do not say which rank they are: 0 to {len(paths) - 1} in the order given"
    certain = tuple(int(rank) for rank in ranks if rank is not None)
    _refuse_doubles(paths, certain)
    return certain, note


def world_size_of(paths: Sequence[Path], keys: Sequence[Mapping[str, Any]]) -> int | None:
    """Number of ranks of the job as its files state it; None where none does.

    Raises
    ------
    RankConflictError
        If the files state different numbers.
    """
    stated = [(path.name, _whole(_info(each).get("world_size"))) for path, each in zip(paths, keys, strict=True)]
    infos = zip(paths, map(_info, keys), strict=True)
    backends = {str(info["backend"]).lower(): path.name for path, info in infos if "backend" in info}
    if len(backends) > 1:
        shown = ", ".join(f"{name}: {backend}" for backend, name in backends.items())
        message = f"the files state different backends ({shown}): read two jobs by two calls"
        raise RankConflictError(message)
    sizes = {size for _, size in stated if size is not None}
    if len(sizes) > 1:
        shown = ", ".join(f"{name}: {size}" for name, size in stated)
        message = f"the files state different world sizes ({shown}): read two jobs by two calls"
        raise RankConflictError(message)
    return next(iter(sizes), None)


def _refuse_doubles(paths: Sequence[Path], ranks: Sequence[int]) -> None:
    seen: dict[int, Path] = {}
    for path, rank in zip(paths, ranks, strict=True):
        if rank in seen:
            one, two = (seen[rank].name, path.name) if seen[rank].name != path.name else (seen[rank], path)
            message = f"{one} and {two} are both rank {rank}: read two jobs, or two recordings of one, by two calls"
            raise RankConflictError(message)
        seen[rank] = path


def _info(keys: Mapping[str, Any]) -> Mapping[str, Any]:
    info = keys.get("distributedInfo")
    return info if isinstance(info, dict) else {}


def _whole(value: object) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if 0 <= number <= _LARGEST_RANK else None
