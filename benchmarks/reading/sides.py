"""Who is measured: our reader's tiers, the peer, and two plain JSON decoders; and what each does in its load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Side:
    """One way to load a trace.

    Attributes
    ----------
    name
        As `measured.TASKS` knows it.
    title
        In the table.
    does
        What the measured call includes.
    is_peer
        Whether it runs in the interpreter named by --peer-python.
    """

    name: str
    title: str
    does: str
    is_peer: bool = False


SIDES: Final = (
    Side(
        "default",
        "perfnb, msgspec",
        "`read_kineto(file, parser='msgspec')`, then `launches(run)`: decompress (isal), decode, stamps to whole nanoseconds, "
        "every complete event kept except Python functions, device annotations and marks of the recording (counted in the "
        "notes); steps, phases, collectives, and each device op joined to its launch call and step.",
    ),
    Side("fast", "perfnb, numba", "The same by the compiled scanner (`parser='numba'`), its code already in the cache."),
    Side(
        "hta",
        "HTA",
        "`TraceAnalysis(trace_files={0: file})`: gzip + json.loads, all events in a DataFrame; rounds fractional stamps to "
        "whole microseconds; drops events without `dur` or `cat` and unpacks chosen arguments; links CPU and GPU rows by "
        "correlation (`index_correlation`), marks iterations, links forward and backward; with two or more profiler steps it "
        "filters: device rows whose launch is not in the recording and everything of the last step are removed. Python "
        "functions are kept.",
        is_peer=True,
    ),
    Side("json", "gunzip + json.loads", "gzip.decompress, json.loads: Python objects of every entry, no table, no join."),
    Side("orjson", "gunzip + orjson.loads", "gzip.decompress, orjson.loads: Python objects of every entry, no table, no join."),
)

LARGE_BYTES: Final = 20_000_000  # raw; from here on the compiled tier is meant to be used


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one side: CPU ratio to a peer (at most), or peak memory growth per raw byte (at most).

    Attributes
    ----------
    side, peer
        Names of sides; `peer` is empty for a bound on memory.
    bound
        At most; a tenth of the peer's CPU is 0.1.
    sizes
        Which files it holds for: "large", "small" or "all".
    """

    side: str
    peer: str
    bound: float
    sizes: str = "all"


TARGETS: Final = (
    Target("fast", "hta", 1 / 10, "large"),
    Target("fast", "json", 1 / 4, "large"),
    Target("fast", "", 1.3, "large"),
    Target("default", "hta", 1 / 3, "large"),
    Target("default", "hta", 1 / 4, "small"),
    Target("default", "", 2.5),
)
