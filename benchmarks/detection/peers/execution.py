"""Runs one case under one peer, in the peer's interpreter, and keeps what came out, whatever that was."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.detection.case import Case, NotPermittedError
from benchmarks.detection.ranks_job import RANKS
from benchmarks.detection.ranks_link import in_own_network
from benchmarks.detection.storage import write_whole

FORMAT: Final = 1
LIMIT_S: Final = 90.0
"""A case that takes longer under a peer did not run: it takes 5 to 15 s."""

_REPOSITORY: Final = Path(__file__).resolve().parents[3]
_LAST_WORDS: Final = 400
_LEFT_OUT: Final = ("text", "card")
"""Of TraceML's summary: the same again as drawn for a terminal."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case under one peer.

    Attributes
    ----------
    case, peer, version
        What ran under what; the version is that of the peer's package.
    reason
        Why it did not run; empty where it did.
    raw
        What the peer said, as it said it, in JSON: per rank, or one summary.
    amount
        How much of the fault, in the unit of the fault.
    seconds
        How long it took.
    """

    case: Case
    peer: str
    version: str = ""
    reason: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    amount: float = 0.0
    seconds: float = 0.0


def path_of(folder: Path, case: Case, peer: str) -> Path:
    """File of an outcome."""
    return folder / f"{case.id}.{peer}.json.xz"


def store(folder: Path, outcome: Outcome) -> None:
    """Write an outcome, whole or not at all."""
    told = {
        "format": FORMAT,
        "case": outcome.case.as_json(),
        **{name: getattr(outcome, name) for name in ("peer", "version", "reason", "raw", "amount", "seconds")},
    }
    data = json.dumps(told, separators=(",", ":"), default=str).encode()
    write_whole(path_of(folder, outcome.case, outcome.peer), lzma.compress(data, preset=9))


def stored(path: Path) -> Outcome:
    """An outcome from its file.

    Raises
    ------
    ValueError
        If another version of this program wrote it.
    """
    told = json.loads(lzma.decompress(path.read_bytes()))
    if told.pop("format") != FORMAT:
        message = f"{path.name} is of another format than {FORMAT}: run the peers again"
        raise ValueError(message)
    return Outcome(**{**told, "case": Case.from_json(told["case"])})


def execute(case: Case, peer: str, python: Path, amount: float, steps: int, scratch: Path) -> Outcome:
    """Train a case once under a peer.

    Parameters
    ----------
    case, amount, steps
        What to train: how much of its fault, and for how long.
    peer
        Name in `wrappers.PEERS`.
    python
        Interpreter that has it.
    scratch
        Folder on a disk to write in meanwhile: a temporary folder may lie in memory, which no fault of reading shows.

    Returns
    -------
    Outcome
        With the reason where it did not run.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="perfnb-peer-", dir=scratch.absolute()) as name:
        place = Path(name)
        told = {"case": case.as_json(), "peer": peer, "amount": amount, "steps": steps, "place": name}
        (place / "spec.json").write_text(json.dumps(told), encoding="utf-8")
        try:
            command, environment = _command(case, peer, python, place)
            words = _run(command, environment, place)
            version, raw, reason = *_answers(place, peer), ""
        except (NotPermittedError, JobError) as error:
            version, raw, reason = "", {}, _without_paths(str(error), name)
        else:
            reason = "" if raw else _without_paths(words, name) or "it said nothing"
    return Outcome(case, peer, version, reason, raw, amount, round(time.monotonic() - began, 1))


class JobError(Exception):
    """A peer's job did not end well: the message has its last words."""


def _command(case: Case, peer: str, python: Path, place: Path) -> tuple[list[str], dict[str, str]]:
    spec = str(place / "spec.json")
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [str(python), "-m", "benchmarks.detection.peers.job", spec]
    if peer == "traceml":
        ports = [str(port) for port in _free_ports(2)]
        command = [str(python.parent / "traceml"), "run", "--mode", "summary", "--logs-dir", str(place / "logs")]
        command += ["--run-name", "case", "--master-port", ports[0], "--aggregator-port", ports[1]]
        command += ["--nproc-per-node", str(RANKS)] if case.kind == "ranks" else []
        command += [str(Path(__file__).with_name("job.py")), "--args", spec]
    if "slow_link" in case.faults:
        command, environment["PERFNB_OWN_NETWORK"] = in_own_network(command), "1"
    return command, environment


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _run(command: Sequence[str], environment: Mapping[str, str], place: Path) -> str:
    """Run it to its end; its last words. None of its processes is left."""
    path = place / "words.txt"
    with path.open("wb") as words:
        job = subprocess.Popen(  # noqa: S603 - the interpreter that the caller names, on a file of this package
            command, stdout=words, stderr=words, env=dict(environment), cwd=place, start_new_session=True
        )
        try:
            code = job.wait(LIMIT_S)
        except subprocess.TimeoutExpired as error:
            message = f"it took longer than {LIMIT_S:.0f} s"
            raise JobError(message) from error
        finally:
            _end(job)
    told = path.read_text(encoding="utf-8", errors="replace").strip()[-_LAST_WORDS:]
    if code != 0:
        message = f"exit status {code}: {told}"
        raise JobError(message)
    return told


def _end(job: subprocess.Popen[bytes]) -> None:
    """End a job, its group, and what it started in groups of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(job.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()


def _answers(place: Path, peer: str) -> tuple[str, dict[str, Any]]:
    """Version and what was said; nothing where an answer is missing."""
    files = sorted(place.glob("answer*.json"))
    answers = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    version = answers[0]["version"] if answers else ""
    if peer != "traceml":
        return version, {"ranks": [each["said"] for each in answers]} if answers else {}
    summary = place / "logs" / "case" / "final_summary.json"
    return version, _trimmed(json.loads(summary.read_text(encoding="utf-8"))) if summary.exists() else {}


def _trimmed(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _trimmed(value) for name, value in told.items() if name not in _LEFT_OUT}
    return [_trimmed(each) for each in told] if isinstance(told, list) else told


def _without_paths(text: str, place: str) -> str:
    return text.replace(place, "PLACE").replace(str(_REPOSITORY), ".")
