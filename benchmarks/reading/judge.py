"""One damaged file through the reader's tiers, and whether what came of it is allowed."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmarks.reading.present import Present, entries_present
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
        "warning: CLASS", and what `_counted` finds: events lost, invented, or not in the tables.
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
    installed = ("msgspec", "numba") if importlib.util.find_spec("numba") else ("msgspec",)
    return (wanted,) if wanted else installed


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
    foreign = [each for each in caught if not _is_ours(each.category)]
    if foreign:
        return Outcome(f"warning: {foreign[0].category.__name__}", str(foreign[0].message)[:_SHOWN])
    return _counted(run, raw, present, is_cut=bool(caught))


def _counted(run: Run, raw: rows.RawTrace, present: Present | None, *, is_cut: bool) -> Outcome:
    said = f"{len(raw.complete)} complete + {len(raw.memory)} memory + {sum(raw.counts.values())} reported = {raw.entries}?"
    if len(raw.complete) + len(raw.memory) + sum(raw.counts.values()) != raw.entries:
        return Outcome("events lost or invented inside the reader", said)
    if (len(run.host_ops) + len(run.device_ops), len(run.allocations)) != (len(raw.complete), len(raw.memory)):
        in_tables = f"{len(run.host_ops)} host + {len(run.device_ops)} device ops, {len(run.allocations)} allocations"
        return Outcome("tables hold other rows", f"{said}, in the tables {in_tables}")
    if present is not None and raw.entries < present.entries:
        return Outcome("events lost", f"{said}, {present.entries} present")
    if present is not None and present.is_whole and (is_cut or raw.entries > present.entries):
        return Outcome("events invented" if not is_cut else "a whole file read as cut", f"{said}, {present.entries} present")
    kind = "read up to the cut" if is_cut else "read"
    return Outcome(kind, said, digest(run), is_count_checked=present is not None)


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


def _is_ours(category: type[Warning]) -> bool:
    """Whether a warning is the one on a trace that ends early."""
    return category.__name__ == TRUNCATED and category.__module__.partition(".")[0] == "perfnb"


def _origin(error: BaseException) -> str:
    """The last place in perfnb that an error passed."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "perfnb" in Path(frame.filename).parts]
    return f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "unknown"


def _place(lines: Sequence[str]) -> str:
    ours = [line.strip() for line in lines if "/perfnb/" in line]
    return ours[-1][-_SHOWN:] if ours else ""
