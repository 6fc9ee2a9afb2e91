"""Runs cases one after another, each in a process of its own, and stores what they recorded; what is there is not run again."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from benchmarks.detection import storage
from benchmarks.detection.case import Case, Measured, NotPermittedError, Split
from benchmarks.detection.groups import remove_groups

PROGRAM: Final = "benchmarks.detection"
KINDS: Final = ("single", "controls", "ranks")
LONGEST_S: Final = 240.0
"""A case that takes longer is ended and counted as not run."""

_ROOT: Final = Path(__file__).parents[2]


def module_of(kind: str) -> ModuleType | None:
    """Module that measures a kind of cases; None where it is not there."""
    name = f"{PROGRAM}.{kind}"
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def cases(chosen: str, only: Sequence[str] = ()) -> list[Case]:
    """Cases of a set: development, held_out or controls (those of held-out workloads).

    Parameters
    ----------
    chosen
        Name of the set.
    only
        Ids of faults or controls; all where empty.
    """
    split: Split = "development" if chosen == "development" else "held_out"
    kinds = ("controls",) if chosen == "controls" else ("single", "ranks")
    modules = [module for kind in kinds if (module := module_of(kind)) is not None and hasattr(module, "cases")]
    found: list[Case] = [case for module in modules for case in module.cases(split)]
    return [case for case in found if not only or {"+".join(case.faults), case.control} & set(only)]


def run(wanted: Sequence[Case], out: Path, *, resume: bool = False, lock: Path | None = None) -> int:
    """Run cases and store each as it ends.

    Parameters
    ----------
    wanted, out
        The cases, and the folder of their files.
    resume
        Whether those that are stored, or could not run, are left as they are.
    lock
        A file that others lock who measure on this machine too.

    Returns
    -------
    int
        How many are stored or known not to be possible here.
    """
    out = out.resolve()  # each case has a working directory of its own
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{PROGRAM}.child"])  # torch and pandas are imported once, for all cases
    left = [case for case in wanted if not (resume and _is_done(case, out))]
    done, began, spent = len(wanted) - len(left), time.monotonic(), 0.0
    for number, case in enumerate(left, 1):
        with _locked(lock), tempfile.TemporaryDirectory(prefix="perfnb-case-", dir=_ensured(out)) as place:
            start = time.monotonic()
            process = context.Process(target=_run_one, args=(case, out, Path(place)))
            process.start()
            _wait(process, case, out)
            took = time.monotonic() - start
        spent += took
        done += _is_done(case, out)
        to_go = spent / number * (len(left) - number)
        print(f"{number}/{len(left)} {case.id}: {_said(case, out)} ({took:.0f} s, {to_go / 60:.0f} min left)", flush=True)
    print(f"{done} of {len(wanted)} cases are stored, in {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return done


def _ensured(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextlib.contextmanager
def _locked(lock: Path | None) -> Iterator[None]:
    if lock is None:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait(process: BaseProcess, case: Case, out: Path) -> None:
    process.join(LONGEST_S)
    identity = process.pid or 0
    if process.is_alive():
        process.kill()
        process.join()
        _fail(case, out, f"it took longer than {LONGEST_S:.0f} s")
    elif process.exitcode:
        _fail(case, out, f"its process ended with {process.exitcode}")
    remove_groups(identity)


def _run_one(case: Case, out: Path, place: Path) -> None:
    """In a process of its own: measure a case, and store it or why it could not run."""
    started = time.monotonic()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # many_workers means to
    try:
        module = module_of(case.kind)
        assert module is not None  # noqa: S101 - its cases came from there
        os.chdir(place)
        multiprocessing.set_start_method("fork", force=True)  # as in a user's script; a fork server's child inherits its own
        measured: Measured = module.measure(case, place)
        path = _path(case, out)
        storage.write(path, case, measured, place, provenance(time.monotonic() - started))
        _failed_path(case, out).unlink(missing_ok=True)
    except NotPermittedError as error:
        _fail(case, out, f"not permitted here: {error}")
    except Exception as error:  # noqa: BLE001 - one case that fails must not end the others
        _fail(case, out, f"{type(error).__name__}: {error}")


def _path(case: Case, out: Path) -> Path:
    return out / f"{case.id}{storage.SUFFIX}"


def _failed_path(case: Case, out: Path) -> Path:
    return out / f"{case.id}{storage.FAILED}"


def _is_done(case: Case, out: Path) -> bool:
    failed = _failed_path(case, out)
    return _path(case, out).exists() or (failed.exists() and "not permitted" in failed.read_text(encoding="utf-8"))


def _fail(case: Case, out: Path, reason: str) -> None:
    told = {"case": case.as_json(), "reason": reason.replace(str(_ROOT), ".")}
    storage.write_whole(_failed_path(case, out), json.dumps(told, indent=1).encode())


def _said(case: Case, out: Path) -> str:
    """What became of a case, in a few words; never what detectors say of it."""
    path, failed = _path(case, out), _failed_path(case, out)
    if failed.exists():
        return f"did not run: {json.loads(failed.read_text(encoding='utf-8'))['reason']}"
    told = storage.header(path)
    size = f"{path.stat().st_size / 1e3:.0f} kB"
    if told["certified"] is not None:
        word = "certified" if told["certified"]["is_certified"] else "NOT certified"
        return f"{word}, data {told['certified']['data_share']:.1%}, {size}"
    return ", ".join(f"true share {each['share']:.1%}" for each in told["truths"]) + f", {size}"


def provenance(seconds: float) -> dict[str, Any]:
    """What the numbers of a case depend on."""
    from benchmarks.samples.host import describe_machine, describe_versions  # noqa: PLC0415 - imports torch

    return {
        "program": PROGRAM,
        "recorded_at": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "versions": describe_versions(),
        "machine": describe_machine(),
        "seconds": round(seconds, 1),
    }


def commit() -> str:
    """The commit whose thresholds are in use; marked where files differ from it."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    words = [git, "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - git, by its full path
    return told.stdout.strip() or "unknown"
