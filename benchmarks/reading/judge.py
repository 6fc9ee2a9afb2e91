"""One damaged file through the reader's tiers, and whether what came of it is allowed."""

from __future__ import annotations

import hashlib
import inspect
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmarks.reading.present import Present, entries_present
from perfnb import errors
from perfnb.errors import PerfnbError
from perfnb.read.kineto import read_kineto, rows
from perfnb.run import Run
from perfnb.tables import SCHEMAS

TRUNCATED: Final = "TruncatedTraceWarning"
_SHOWN: Final = 400


class TimeLimitReached(BaseException):
    """Raised by the alarm inside a reader; no `except Exception` may swallow it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tier made of a file.

    Attributes
    ----------
    kind
        "read", "read up to the cut", "refused: CLASS", or a failure: "time limit", "memory", "exception: CLASS in PLACE",
        "warning: CLASS", "events lost", "events invented", "tables hold other rows".
    detail
        The message of an error or what was counted.
    digest
        Of all tables, notes and keys of a run: what tiers must agree on.
    is_count_checked
        Whether events read and reported were compared with what the file holds.
    """

    kind: str
    detail: str = ""
    digest: str = ""
    is_count_checked: bool = False

    @property
    def is_failure(self) -> bool:
        """Whether this must not happen."""
        return not (self.kind.startswith("read") or self.kind.startswith("refused"))


def parsers(wanted: str = "") -> tuple[str, ...]:
    """Tiers to run: the one that is named, else all that there are; empty text is the only tier of a reader without a choice."""
    if "parser" not in inspect.signature(read_kineto).parameters:
        return ("",)
    return (wanted,) if wanted else ("msgspec", "numba")


def judged(path: Path, content: bytes, tiers: Sequence[str]) -> tuple[Outcome, ...]:
    """Outcome of each tier, and one more where they differ."""
    present = entries_present(content)
    found = [outcome_of(path, parser, present) for parser in tiers]
    if len({(each.kind, each.digest) for each in found}) > 1 and not any(each.is_failure for each in found):
        answers = "; ".join(f"{tier}: {each.kind} {each.detail[:120]}" for tier, each in zip(tiers, found, strict=True))
        found.append(Outcome("tiers differ", answers))
    return tuple(found)


def outcome_of(path: Path, parser: str, present: Present | None) -> Outcome:
    """What one tier makes of a file."""
    options: dict[str, Any] = {"parser": parser} if parser else {}
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = read_kineto(path, **options)
            raw = rows.read_rows(path, **options)
    except PerfnbError as error:
        shown = str(error)
        return Outcome(f"refused: {type(error).__name__}" if shown else "error without a message", shown[:_SHOWN])
    except MemoryError:
        return Outcome("memory", "MemoryError: the limit on address space was reached")
    except TimeLimitReached:
        return Outcome("time limit", _place(traceback.format_exc().splitlines()))
    except Exception as error:  # noqa: BLE001 - whatever a reader lets out is what is looked for
        return Outcome(f"exception: {type(error).__name__} in {_origin(error)}", str(error)[:_SHOWN])
    foreign = [each for each in caught if each.category.__name__ != TRUNCATED or not hasattr(errors, TRUNCATED)]
    if foreign:
        return Outcome(f"warning: {foreign[0].category.__name__}", str(foreign[0].message)[:_SHOWN])
    return _counted(run, raw, present, is_cut=bool(caught))


def _counted(run: Run, raw: Any, present: Present | None, *, is_cut: bool) -> Outcome:
    kind = "read up to the cut" if is_cut else "read"
    kept, reported = len(raw.rows), reported_entries(raw.counts)
    in_tables = len(run.host_ops) + len(run.device_ops) + len(run.allocations)
    said = f"{kept} rows + {reported} reported"
    if in_tables != kept:
        return Outcome("tables hold other rows", f"{said}, {in_tables} in the tables")
    if present is not None:
        is_all = present.is_whole and not is_cut
        if kept + reported < present.entries:
            return Outcome("events lost", f"{said}, {present.entries} present")
        if is_all and kept + reported > present.entries:
            return Outcome("events invented", f"{said}, {present.entries} present")
    return Outcome(kind, said, digest(run), is_count_checked=present is not None)


def reported_entries(counts: Mapping[str, int]) -> int:
    """Entries that a reader says it did not keep; what it counts in other units is left aside."""
    return sum(count for what, count in counts.items() if not what.startswith("chunks "))


def digest(run: Run) -> str:
    """Hash of all that a run holds.

    Examples
    --------
    >>> digest(Run()) == digest(Run())
    True
    """
    found = hashlib.sha256(repr((run.notes, sorted(run.signals), sorted(run.missing.items()), run.world_size)).encode())
    for name in SCHEMAS:
        frame: pd.DataFrame = getattr(run, name)
        plain = frame.astype({column: object for column, dtype in frame.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)})
        found.update(f"{name} {list(map(str, frame.dtypes))}".encode())
        found.update(plain.to_csv(index=False, float_format="%.17g").encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _origin(error: BaseException) -> str:
    """The last place in perfnb that an error passed."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "perfnb" in Path(frame.filename).parts]
    return f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "unknown"


def _place(lines: Sequence[str]) -> str:
    ours = [line.strip() for line in lines if "/perfnb/" in line]
    return ours[-1][-_SHOWN:] if ours else ""
