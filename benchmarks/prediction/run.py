"""Runs pairs one after another, each in a process of its own, and stores them; what is there is not run again."""

from __future__ import annotations

import importlib
import json
import lzma
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.detection.groups import remove_groups
from benchmarks.detection.run import provenance
from benchmarks.detection.storage import FAILED, SUFFIX, write_whole
from benchmarks.prediction.case import PairCase

PROGRAM: Final = "benchmarks.prediction"
LONGEST_S: Final = 300.0
"""A pair that takes longer is ended and counted as not run."""

_ROOT: Final = Path(__file__).parents[2]
_FILTERS: Final = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "pb": 0}]  # text: smallest so


def run(
    wanted: Sequence[PairCase], out: Path, *, resume: bool = False, rounds: int | None = None, until: float | None = None
) -> int:
    """Run pairs and store each as it ends.

    Parameters
    ----------
    wanted, out
        The pairs, and the folder of their files.
    resume
        Whether those that are stored, or could not run, are left as they are.
    rounds
        Blocks of each side.
    until
        No pair begins after this time of `time.monotonic`.

    Returns
    -------
    int
        How many are stored.
    """
    out.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"{PROGRAM}.child")  # torch and pandas are imported once, for all pairs
    context = multiprocessing.get_context("fork")
    left = [case for case in wanted if not (resume and (path_of(case, out).exists() or failed_path(case, out).exists()))]
    began = time.monotonic()
    for number, case in enumerate(left, 1):
        if until is not None and time.monotonic() > until:
            print(f"{len(left) - number + 1} pairs were not begun: the time is over", flush=True)
            break
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="perfnb-pair-", dir=out.resolve()) as place:
            process = context.Process(target=_run_one, args=(case, out.resolve(), Path(place), rounds))
            process.start()
            process.join(LONGEST_S)
            if process.is_alive():
                process.kill()
                process.join()
                _fail(case, out, f"it took longer than {LONGEST_S:.0f} s")
            elif process.exitcode:
                _fail(case, out, f"its process ended with {process.exitcode}")
            remove_groups(process.pid or 0)
        passed = time.monotonic() - began
        to_go = passed / number * (len(left) - number) / 60
        took = time.monotonic() - started
        print(f"{number}/{len(left)} {case.id}: {_said(case, out)} ({took:.0f} s, {to_go:.0f} min left)", flush=True)
    done = sum(path_of(case, out).exists() for case in wanted)
    print(f"{done} of {len(wanted)} pairs are stored, in {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return done


def path_of(case: PairCase, out: Path) -> Path:
    """File of a pair."""
    return out / f"{case.id}{SUFFIX}"


def failed_path(case: PairCase, out: Path) -> Path:
    """File of a pair that could not run."""
    return out / f"{case.id}{FAILED}"


def _run_one(case: PairCase, out: Path, place: Path, rounds: int | None) -> None:
    """In a process of its own: measure a pair, and store it or why it could not run."""
    from benchmarks.prediction.measure import measure  # noqa: PLC0415 - the process that lists pairs needs no torch

    started = time.monotonic()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores are meant
    try:
        os.chdir(place)
        multiprocessing.set_start_method("fork", force=True)  # as in a user's script; a fork server's child inherits its own
        told = measure(case, place, out, **({} if rounds is None else {"rounds": rounds}))
        told["provenance"] = {**provenance(time.monotonic() - started), "program": PROGRAM}
        write_whole(path_of(case, out), lzma.compress(_text(told), format=lzma.FORMAT_XZ, filters=_FILTERS))
        failed_path(case, out).unlink(missing_ok=True)
    except Exception as error:  # noqa: BLE001 - one pair that fails must not end the others
        _fail(case, out, f"{type(error).__name__}: {error}")


def _text(told: dict[str, Any]) -> bytes:
    return json.dumps(told, separators=(",", ":"), allow_nan=True).encode()


def _fail(case: PairCase, out: Path, reason: str) -> None:
    first, _, rest = reason.replace(str(_ROOT), ".").partition("\n")
    if rest:
        print(rest, flush=True)  # where it happened is for whoever runs it: files hold no paths
    told = {"case": case.as_json(), "reason": first}
    write_whole(failed_path(case, out), json.dumps(told, indent=1).encode())


def _said(case: PairCase, out: Path) -> str:
    """What became of a pair, in a few words; never how right the prediction was: nobody tunes what is only scored."""
    failed = failed_path(case, out)
    if failed.exists():
        return f"did not run: {json.loads(failed.read_text(encoding='utf-8'))['reason']}"
    told = json.loads(lzma.decompress(path_of(case, out).read_bytes()))
    foreign = max(each["foreign_cores"] for each in told["blocks"])
    refused = "refused, " if told["row"]["refused"] else ""
    return f"{refused}{foreign:.2f} foreign cores at most, {path_of(case, out).stat().st_size / 1e3:.0f} kB"
