"""From which size on the compiled scanner reads a trace sooner than msgspec in a new process: CPU seconds, as a table.

python -m benchmarks.scanner_crossover TRACE...
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from perfnb.read.kineto.columns import Parser
from perfnb.read.kineto.events import TraceFile
from perfnb.read.kineto.scanner import ScanParser
from perfnb.read.kineto.source import text_bytes
from perfnb.read.kineto.structs import StructParser

_REPEATS: Final = 5
_START: Final = """
import time
import perfnb.read.kineto.rows
from perfnb.read.kineto.scanner import ScanParser
begin = time.process_time()
ScanParser(python=False)
print(time.process_time() - begin)
"""


def start_s() -> float:
    """CPU seconds that a new process takes to import numba and load what is compiled; the first of all compiles."""
    command = [sys.executable, "-c", _START]
    return min(
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - this interpreter, own code
        for _ in range(_REPEATS)
    )


def reading_s(path: Path, parser: Callable[[], Parser]) -> float:
    """CPU seconds to fill the columns of a file, the best of some."""
    seconds = []
    for _ in range(_REPEATS):
        begin = time.process_time()
        TraceFile(path).read(parser())
        seconds.append(time.process_time() - begin)
    return min(seconds)


def main() -> None:
    """Print one line per trace, and what the start costs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("traces", nargs="+", type=Path, metavar="TRACE")
    start = start_s()
    print(f"start of the scanner in a new process: {start:.2f} CPU s")
    print(f"{'file':40} {'MB':>6} {'msgspec s':>10} {'scanner s':>10} {'from MB':>8}")
    for path in arguments.parse_args().traces:
        size = text_bytes(path) / 1e6
        by_msgspec = reading_s(path, lambda: StructParser(python=False))
        by_numba = reading_s(path, lambda: ScanParser(python=False))
        crossover = start / (by_msgspec - by_numba) * size if by_msgspec > by_numba else float("inf")
        print(f"{path.name[-40:]:40} {size:6.1f} {by_msgspec:10.3f} {by_numba:10.3f} {crossover:8.0f}")


if __name__ == "__main__":
    main()
