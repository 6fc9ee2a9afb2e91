"""Load beside a training: `python -m benchmarks.detection.load KIND FOLDER` runs one; `beside` starts and ends them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_FSYNC_BYTES: Final = 4 << 20
_STREAM_BYTES: Final = 64 << 20  # larger than the last cache of this class of machine
_ROOT: Final = Path(__file__).parents[2]
_TURN_S: Final = 0.05


def _busy(_: Path) -> None:
    until = time.perf_counter() + _TURN_S
    while time.perf_counter() < until:
        sum(range(1000))


def _fsync(folder: Path) -> None:
    path = folder / f"{os.getpid()}.bin"
    with path.open("wb") as file:
        file.write(os.urandom(_FSYNC_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _memory(_: Path) -> None:
    source = _STREAM.setdefault("source", bytearray(_STREAM_BYTES))
    _STREAM["copy"] = bytearray(source)


def _training(_: Path) -> None:
    import torch  # noqa: PLC0415 - the other loads start in a tenth of the time

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _step in range(20):
        optimizer.zero_grad()
        model(torch.randn(64, 256)).square().mean().backward()
        optimizer.step()


_STREAM: Final[dict[str, bytearray]] = {}
TURNS: Final[dict[str, Callable[[Path], None]]] = {"busy": _busy, "fsync": _fsync, "memory": _memory, "training": _training}


def loads(kind: str, cores: int) -> list[str]:
    """Processes that a condition of the host starts: busy loops on twice the cores, one each of the others, or all.

    Examples
    --------
    >>> loads("busy", 2), loads("all", 1), loads("quiet", 2)
    (['busy', 'busy', 'busy', 'busy'], ['busy', 'busy', 'fsync', 'memory', 'training'], [])
    """
    one_each = {"busy": ["busy"] * (2 * cores), "fsync": ["fsync"], "memory": ["memory"], "training": ["training"], "quiet": []}
    return [name for names in one_each.values() for name in names] if kind == "all" else one_each[kind]


@contextlib.contextmanager
def beside(kinds: list[str]) -> Iterator[None]:
    """Run such loads until the block is left; returns once each has made its first turn."""
    with tempfile.TemporaryDirectory(prefix="perfnb-load-") as folder, contextlib.ExitStack() as started:
        running = []
        for kind in kinds:
            words = [sys.executable, "-m", "benchmarks.detection.load", kind, folder]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=_ROOT)  # noqa: S603 - this interpreter, a name of this file
            started.callback(_end, process)
            running.append(process)
        for process in running:
            assert process.stdout is not None  # noqa: S101 - piped above
            process.stdout.readline()
        yield


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def main(kind: str, folder: Path) -> None:
    """Make turns until whoever started this is gone."""
    parent = os.getppid()
    TURNS[kind](folder)
    print("ready", flush=True)
    while os.getppid() == parent:
        TURNS[kind](folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
