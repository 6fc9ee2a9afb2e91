"""Worker processes that read damaged traces under limits, and the watch over them: a hang or crash costs one worker only."""

from __future__ import annotations

import gzip
import multiprocessing
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any, Final

from benchmarks.reading.measured import clear_peak, memory_bytes
from benchmarks.reading.mutations import mutated

_BATCH: Final = 50
_GRACE_S: Final = 20.0  # for starting, compiling and what no alarm can interrupt
_IDLE: Final = -1


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one file in one tier.

    Attributes
    ----------
    seconds
        Wall time; an alarm ends the reader, the watch ends a worker that does not heed it.
    memory_bytes
        Address space that a worker may take on beyond what it had after its imports.
    """

    seconds: float = 10.0
    memory_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Case:
    """A file that was read: its number gives it back, whatever came of it.

    Attributes
    ----------
    number, origin, mutations
        Which case it is, the seed trace and what was done to it.
    outcomes
        (kind, detail, is_failure, is_count_checked) of each tier, and of their comparison where they differ.
    peak_growth_bytes
        Of the resident size while it was read.
    """

    number: int
    origin: str
    mutations: tuple[str, ...]
    outcomes: tuple[tuple[str, str, bool, bool], ...]
    peak_growth_bytes: int = 0


def damaged(seeds: Sequence[tuple[str, bytes]], seed: int, number: int) -> tuple[str, bytes, tuple[str, ...]]:
    """Name of the seed trace, content and mutations of a case: the same for the same seed and number."""
    draw = random.Random(f"{seed}/{number}")
    name, text = seeds[draw.randrange(len(seeds))]
    content, done = mutated(text, draw)
    return name, content, done


def is_gzip(content: bytes) -> bool:
    """Whether a file's name should end in .gz."""
    return content[:2] == b"\x1f\x8b"


class Alarmed:
    """Reads cases one by one in this process, each under the limits."""

    def __init__(self, seeds: Sequence[tuple[str, bytes]], seed: int, tiers: Sequence[str], limits: Limits, folder: Path) -> None:
        self.seeds, self.seed, self.tiers, self.limits, self.folder = seeds, seed, tuple(tiers), limits, folder

    def read(self, number: int) -> Case:
        """Make a case's file, read it in every tier and judge."""
        from benchmarks.reading.judge import TimeLimitReached, judged  # noqa: PLC0415 - workers import the reader, not the watch

        def reached(_signal: int, _frame: FrameType | None) -> None:
            raise TimeLimitReached

        name, content, done = damaged(self.seeds, self.seed, number)
        path = self.folder / f"trace.json{'.gz' if is_gzip(content) else ''}"
        path.write_bytes(content)
        clear_peak()
        rss = memory_bytes("VmRSS")
        signal.signal(signal.SIGALRM, reached)
        signal.setitimer(signal.ITIMER_REAL, self.limits.seconds * len(self.tiers))
        try:
            outcomes = [
                (each.kind, each.detail, each.is_failure, each.is_count_checked) for each in judged(path, content, self.tiers)
            ]
        except TimeLimitReached:
            outcomes = [("time limit", "outside a reader", True, False)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return Case(number, name, done, tuple(outcomes), max(0, memory_bytes("VmHWM") - rss))


def _work(
    pipe: Connection, current: Any, seeds: list[tuple[str, bytes]], seed: int, tiers: Sequence[str], limits: Limits
) -> None:
    """A worker: batches of numbers in, cases out; the shared number says which case it is at."""
    with tempfile.TemporaryDirectory(prefix="perfnb-fuzz-") as folder:
        alarmed = Alarmed(seeds, seed, tiers, limits, Path(folder))
        for name, text in seeds:  # imports, compiled code and lazy parts before the limit on memory
            path = Path(folder) / "warm.json"
            path.write_bytes(text)
            from benchmarks.reading.judge import judged  # noqa: PLC0415

            _ = [(name, each.kind) for each in judged(path, text, tiers)]
        bound = memory_bytes("VmSize") + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (bound, resource.getrlimit(resource.RLIMIT_AS)[1]))
        pipe.send(None)
        while (batch := pipe.recv()) is not None:
            found = []
            for number in batch:
                current.value = number
                found.append(alarmed.read(number))
            current.value = _IDLE
            pipe.send(found)


class _Worker:
    """A worker process as the watch sees it."""

    def __init__(self, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.current: Any = context.Value("q", _IDLE)
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, self.current, *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.batch: list[int] = []
        self.at, self.since = _IDLE, time.monotonic()

    def is_stuck(self, seconds: float) -> bool:
        """Whether it has been at one case for too long."""
        at = int(self.current.value)
        if at != self.at:
            self.at, self.since = at, time.monotonic()
        return time.monotonic() - self.since > seconds

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def cases(
    seeds: list[tuple[str, bytes]], seed: int, numbers: Sequence[int], tiers: Sequence[str], limits: Limits, workers: int
) -> Iterator[Case]:
    """Every case, as it gets done, by several processes."""
    arguments = (seeds, seed, tuple(tiers), limits)
    waiting = [list(numbers[start : start + _BATCH]) for start in range(0, len(numbers), _BATCH)][::-1]
    running = [_Worker(*arguments) for _ in range(max(1, min(workers, len(waiting))))]
    patience = limits.seconds * len(tiers) + _GRACE_S
    lost_at_start = 0
    while running:
        ready = wait([each.pipe for each in running], timeout=0.5)
        for worker in list(running):
            ended, answer = _heard(worker, is_ready=worker.pipe in ready)
            if answer is not None:
                yield from answer
                worker.batch = waiting.pop() if waiting else []
                worker.pipe.send(worker.batch or None)
            if not worker.batch and answer is not None:
                running.remove(worker)
                worker.process.join()
            elif ended or worker.is_stuck(patience if worker.batch else 10 * patience):
                running.remove(worker)
                kind = f"crash: exit {worker.process.exitcode}" if ended else "hang"
                worker.end()
                at = int(worker.current.value)
                if at == _IDLE:
                    lost_at_start += 1
                    if lost_at_start > workers:
                        message = f"workers do not start ({kind}): read the seeds in this process with --replay to see why"
                        raise RuntimeError(message)
                else:
                    name, _, done = damaged(seeds, seed, at)
                    yield Case(at, name, done, ((kind, "the worker was lost", True, False),))
                if rest := [number for number in worker.batch if number != at]:
                    waiting.append(rest)  # cases of the batch that were done are done again: they are few
                if waiting:
                    running.append(_Worker(*arguments))


def _heard(worker: _Worker, *, is_ready: bool) -> tuple[bool, list[Case] | None]:
    """Whether a worker ended by itself, and the cases that it sent (none when it has just started)."""
    if not is_ready:
        return not worker.process.is_alive(), None
    try:
        return False, worker.pipe.recv() or []
    except (EOFError, ConnectionError):
        worker.process.join(timeout=5)
        return True, None


def save(case: Case, content: bytes, kind: str, folder: Path) -> Path:
    """Write the file of a failed case, named for what it did."""
    folder.mkdir(parents=True, exist_ok=True)
    word = "".join(character if character.isalnum() else "_" for character in kind)[:60]
    path = folder / f"{word}-{case.number}.json{'.gz' if is_gzip(content) else ''}"
    path.write_bytes(content)
    return path


def counted(found: Sequence[Case]) -> Counter[str]:
    """How often each outcome came."""
    return Counter(kind for case in found for kind, *_ in case.outcomes)


def gzipped(seeds: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The same traces, compressed."""
    return [(f"{name}.gz", gzip.compress(text)) for name, text in seeds]
