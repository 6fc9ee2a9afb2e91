"""Everything that is measured of memory, one part after the other: ``python -m benchmarks.memory [PART ...]``.

leak: the leak test's false alarms and detections; loader: 300,000 damaged snapshots through the loader of plain pickles; speed: a
snapshot of a million events, one what-if; dry_run: the dry run against real training, beside its baselines. Real GPU snapshots go
through `python -m benchmarks.memory.replay_exactness FILES`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

PARTS: Final = {
    "leak": ("benchmarks.memory.leak", ()),
    "loader": ("benchmarks.memory.fuzz", ("--mutants", "300000")),
    "speed": ("benchmarks.memory.speed", ()),
    "dry_run": ("benchmarks.memory.dry_run", ()),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts; 1 where one of them is over its limits."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help=f"{', '.join(PARTS)}; all by default")
    chosen = parser.parse_args(words)
    worst = 0
    for name in chosen.part or PARTS:
        module, arguments = PARTS[name]
        print(f"== {name}", flush=True)
        worst = max(worst, import_module(module).main(list(arguments)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
