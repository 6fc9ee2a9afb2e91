"""The process of one unit: imports what it needs, waits for its turn, runs, and leaves its result in a file."""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.gpu.units import NeedsCudaError, missing_package, stage


def main(words: list[str]) -> int:
    """Run `STAGE UNIT FOLDER ANSWER RUNNING MODE`; the answer is written whole or not at all.

    The process is started while another one measures: until it reads `go` it only imports, and touches no device.
    """
    stage_name, unit_name, folder, answer, running, mode = words
    rehearse = mode == "rehearse"
    module = stage(stage_name)
    unit = next(each for each in module.units(rehearse=rehearse) if each.name == unit_name)
    missing = missing_package(module)
    for package in () if missing else module.PACKAGES:
        importlib.import_module(package)
    if sys.stdin.readline().strip() != "go":
        return 1
    Path(running).touch()  # from now on its limit counts
    started = time.perf_counter()
    line: dict[str, Any] = {"stage": stage_name, "unit": unit_name}
    if missing:
        line |= {"state": "lacks a package", "error": f"{missing} is not installed: carry it (benchmarks/gpu/README.md)"}
    else:
        line |= _outcome(module, unit, Path(folder), rehearse=rehearse)
    line["seconds"] = round(time.perf_counter() - started, 2)
    unfinished = Path(f"{answer}.unfinished")
    try:
        text = json.dumps(line, allow_nan=False)
    except (TypeError, ValueError) as error:
        text = json.dumps({"stage": stage_name, "unit": unit_name, "state": "failed", "seconds": line["seconds"],
                           "error": f"the result is no JSON: {error}"})  # fmt: skip
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(answer)
    return 0


def _outcome(module: Any, unit: Any, folder: Path, *, rehearse: bool) -> dict[str, Any]:
    try:
        result = module.run(unit, folder, rehearse=rehearse)
    except NeedsCudaError as reason:
        return {"state": "needs CUDA", "said": f"needs CUDA: {reason}", "result": reason.result}
    except Exception as error:  # noqa: BLE001 - what fails on a device is a result, with its text
        traceback.print_exc()
        return {"state": "failed", "error": f"{type(error).__name__}: {error}"[:2000]}
    return {"state": "ok", "said": result.pop("said", ""), "result": result}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
