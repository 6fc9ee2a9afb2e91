"""Command line of the campaign: runs its units in fresh processes, the most valuable first, within a given time.

python benchmarks/gpu/campaign.py [--out FOLDER] [--packed FOLDER] [--seconds 540] [--rehearse] [--only STAGE ...] [--list]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
if not __package__:  # run as a file: the repository's root stands in for this folder
    sys.path[:] = [str(ROOT), *(each for each in sys.path if Path(each).resolve() != Path(__file__).resolve().parent)]

from benchmarks.gpu import results  # noqa: E402 - needs the line above
from benchmarks.gpu.units import LEAST_S, Unit, in_order, next_unit, stage, stage_names  # noqa: E402 - as above

START_S: Final = 60.0
"""What a process may take to import everything, beyond its own limit."""

_PACK_EVERY_S: Final = 20.0
_CLOSING_S: Final = 5.0  # kept back for the last packing


class Campaign:
    """A run of the campaign.

    Parameters
    ----------
    folder
        For the loose files.
    packed
        For the archives.
    seconds
        All that it may take.
    rehearse
        Run the rehearsal's units, on whatever device there is.
    """

    def __init__(self, folder: Path, packed: Path, seconds: float, *, rehearse: bool) -> None:
        self.folder, self.packed, self.seconds, self.rehearse = folder, packed, seconds, rehearse
        self._started = time.monotonic()
        self._used: dict[str, float] = {}
        self._next: Child | None = None
        self._changed: set[str] = set()
        self._packed_at = self._started

    def left_s(self) -> float:
        """Seconds that are left."""
        return self.seconds - _CLOSING_S - (time.monotonic() - self._started)

    def run(self, units: Sequence[Unit], shares: dict[str, float]) -> None:
        """Run what has no result yet; what finds no time gets a line that says so."""
        done = results.finished(self.folder)
        waiting = [unit for unit in in_order(units) if (unit.stage, unit.name) not in done]
        if len(waiting) < len(units):
            print(f"{len(units) - len(waiting)} of {len(units)} units have a result already", flush=True)
        total, number = len(waiting), 0
        try:
            while waiting and self.left_s() >= LEAST_S:
                child = self._next or self._child(next_unit(waiting, self._used, shares, self.seconds) or waiting[0])
                waiting.remove(child.unit)
                following = next_unit(waiting, self._used, shares, self.seconds)
                self._next = self._child(following) if following is not None else None
                number += 1
                line = child.result(self.left_s())
                self._used[child.unit.stage] = self._used.get(child.unit.stage, 0.0) + line["seconds"]
                self._keep(line, f"{number:3}/{total}")
        finally:
            if self._next is not None:
                self._next.kill()
        for unit in waiting:
            self._keep(_line(unit, "skipped", 0.0, f"no time left: {self.seconds:.0f} s were given"), "  -")

    def _child(self, unit: Unit) -> Child:
        return Child(unit, self.folder, rehearse=self.rehearse)

    def _keep(self, line: dict[str, Any], number: str) -> None:
        results.append_line(self.folder, line)
        elapsed = time.monotonic() - self._started
        said = line.get("error") or line.get("said") or ""
        print(
            f"[{elapsed:5.0f} s, {max(self.left_s(), 0):4.0f} s left] {number} {line['stage']}/{line['unit']}: "
            f"{line['state']} in {line['seconds']:.1f} s  {str(said)[:140]}".rstrip(),
            flush=True,
        )
        self._close(str(line["stage"]))

    def _close(self, stage_name: str) -> None:
        """Pack what changed, but not after every short unit: archives of traces take their time."""
        self._changed.add(stage_name)
        if time.monotonic() - self._packed_at > _PACK_EVERY_S:
            for name in self._changed:
                results.pack(self.folder, self.packed, only=name)
            self._changed, self._packed_at = set(), time.monotonic()

    def close(self) -> dict[str, list[str]]:
        """Write the summary and pack what is there."""
        (self.folder / results.SUMMARY).write_text(results.table(self.folder) + "\n", encoding="utf-8")
        return results.pack(self.folder, self.packed)


class Child:
    """The process of a unit, in a group of its own; it imports at once and runs when told."""

    def __init__(self, unit: Unit, folder: Path, *, rehearse: bool) -> None:
        self.unit = unit
        own = folder / unit.stage
        (own / "logs").mkdir(parents=True, exist_ok=True)
        self._answer = own / "logs" / f"{unit.name}.json"
        self._log = own / "logs" / f"{unit.name}.txt"
        self._running = own / "logs" / f"{unit.name}.runs"
        self._answer.unlink(missing_ok=True)
        self._running.unlink(missing_ok=True)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **unit.environment}
        if rehearse:
            environment |= {"OMP_NUM_THREADS": "1"}  # two busy cores: threads of tiny operators wait for each other
        files = [str(path.resolve()) for path in (own, self._answer, self._running)]
        words = [unit.stage, unit.name, *files, "rehearse" if rehearse else "measure"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, on this package
                [sys.executable, "-m", "benchmarks.gpu.one_unit", *words],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def result(self, left_s: float) -> dict[str, Any]:
        """Let it run as long as its limit says, and no longer than what is left; its line."""
        started = time.monotonic()
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        with contextlib.suppress(OSError):  # it ended already
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()
        if not self._ends_within(min(START_S, left_s), until_it_runs=True) or not self._ends_within(
            min(self.unit.limit_s, left_s - (time.monotonic() - started))
        ):
            self.kill()
            took = time.monotonic() - started
            if took >= left_s:
                return _line(self.unit, "skipped", took, "the campaign's time was over before it ended")
            return _line(self.unit, "timed out", took, f"timed out after {took:.0f} s")
        self.kill()  # what it left behind in its group
        took = time.monotonic() - started
        try:
            line: dict[str, Any] = json.loads(self._answer.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return _line(self.unit, "failed", took, f"ended with code {self._process.returncode} and no result: {self._tail()}")
        self._answer.unlink()
        self._running.unlink(missing_ok=True)
        return {**line, "seconds": round(took, 2)}

    def _ends_within(self, seconds: float, *, until_it_runs: bool = False) -> bool:
        """Whether it ended in time, or with `until_it_runs` whether it has imported everything."""
        until = time.monotonic() + seconds
        while self._process.poll() is None:
            if until_it_runs and self._running.exists():
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def kill(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _tail(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-1500:].strip()


def _line(unit: Unit, state: str, seconds: float, error: str) -> dict[str, Any]:
    return {"stage": unit.stage, "unit": unit.name, "state": state, "seconds": round(seconds, 2), "error": error}


def _describe(folder: Path, *, rehearse: bool) -> None:
    """Write campaign.json; the machine is described by the units, for this process imports no torch.

    Raises
    ------
    SystemExit
        If the folder holds a campaign of the other kind.
    """
    path = folder / results.CAMPAIGN
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8"))["rehearsed"] != rehearse:
            message = f"{folder} holds a campaign of the other kind: a rehearsal and a recording never share a folder"
            raise SystemExit(message)
        return
    told = {
        "program": "benchmarks/gpu/campaign.py",
        "recorded_at": datetime.now(UTC).date().isoformat(),
        "rehearsed": rehearse,
        "python": platform.python_version(),
    }
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/campaign.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_campaign"), help="folder for the loose files; it is resumed")
    parser.add_argument("--packed", type=Path, help="folder for one archive per stage, to carry away (OUT/packed)")
    parser.add_argument("--resume", type=Path, metavar="PACKED", help="unpack the archives of an earlier run into OUT first")
    parser.add_argument("--seconds", type=float, default=540.0, help="all that it may take")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU if there is no GPU")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help=f"of {', '.join(stage_names())}; or STAGE/UNIT")
    parser.add_argument("--list", action="store_true", help="print the units in the order in which they would run")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 where a rehearsal has a unit that failed, or nothing could be run."""
    parser = _parser()
    chosen = parser.parse_args(words)
    asked = chosen.only or stage_names()
    unknown = [name for name in asked if name.partition("/")[0] not in stage_names()]
    if unknown:
        parser.error(f"no stage {', '.join(unknown)}: there are {', '.join(stage_names())}")
    names = list(dict.fromkeys(name.partition("/")[0] for name in asked))
    modules = {name: stage(name) for name in names}
    units = [unit for name in names for unit in modules[name].units(rehearse=chosen.rehearse)]
    units = [unit for unit in units if unit.stage in asked or f"{unit.stage}/{unit.name}" in asked]
    if chosen.list:
        for unit in in_order(units):
            print(f"{unit.value} {unit.stage:14} {unit.name:36} {unit.expected_s:5.0f} s, killed after {unit.limit_s:.0f} s")
        print(f"{len(units)} units, {sum(unit.expected_s for unit in units):.0f} s expected")
        return 0
    if chosen.resume:
        results.unpack(chosen.resume, chosen.out)
    _describe(chosen.out, rehearse=chosen.rehearse)
    packed = chosen.packed or chosen.out / "packed"
    campaign = Campaign(chosen.out, packed, chosen.seconds, rehearse=chosen.rehearse)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended and what is there is packed
    shares = {name: modules[name].SHARE / sum(module.SHARE for module in modules.values()) for name in names}
    try:
        campaign.run(units, shares)
    finally:
        left_out = campaign.close()
    return _closing(chosen.out, packed, left_out, rehearse=chosen.rehearse)


def _closing(folder: Path, packed: Path, left_out: dict[str, list[str]], *, rehearse: bool) -> int:
    """Print the table and say whether all is well."""
    print(results.table(folder))
    for name, files in left_out.items():
        print(f"{name}: {len(files)} files found no room in its archive: {', '.join(files[:8])}")
    sizes = {path.name: path.stat().st_size for path in sorted(packed.iterdir()) if path.is_file()}
    print(f"packed {len(sizes)} files, {sum(sizes.values()):,} bytes, the largest {max(sizes.values(), default=0):,}")
    states = [line["state"] for line in results.lines(folder)]
    bad = sum(state in ("failed", "timed out", "lacks a package") for state in states)
    if rehearse and (bad or "skipped" in states):
        print(f"the rehearsal failed: {bad} units failed, {states.count('skipped')} were skipped")
        return 1
    return 0 if any(state in ("ok", "needs CUDA") for state in states) else 1


if __name__ == "__main__":
    sys.exit(main())
