"""Programs that measure advice on trainings: python -m benchmarks.training {corpus,probes,noise_scale} ..."""

from __future__ import annotations

import runpy
import sys

_PARTS = ("corpus", "probes", "noise_scale")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in _PARTS:  # noqa: PLR2004 - the program and its part
        message = f"usage: python -m benchmarks.training {{{','.join(_PARTS)}}} ..."
        raise SystemExit(message)
    part = sys.argv.pop(1)
    runpy.run_module(f"benchmarks.training.{part}", run_name="__main__", alter_sys=True)
