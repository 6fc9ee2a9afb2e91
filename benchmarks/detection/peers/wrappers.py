"""How each peer is put round a training, as its own documentation has it: runs in an interpreter that has the peer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

import torch

_WAIT, _WARMUP, _ACTIVE = 10, 2, 25
"""Steps of torch's profiler: left alone, started up, recorded. A trace of more than 25 small steps shows nothing new."""

_RUN_NAME: Final = "case"


class Peer(Protocol):
    """One peer around one training of one process.

    `around` is entered for the whole training, `begin` is called after the batch of a step is there, `end` after all that the
    loop does in that step; `answer` is called once at the end.
    """

    def around(self) -> contextlib.AbstractContextManager[Any]:
        """What the whole training runs in."""

    def meet(self, model: torch.nn.Module) -> None:
        """Take note of the model that is trained."""

    def begin(self) -> None:
        """A step begins."""

    def end(self) -> None:
        """A step ended."""

    def answer(self) -> Any:
        """What the peer says, as JSON; None where it says it elsewhere."""


class TraceML:
    """`traceml_ai.init` and `trace_step`; what it says is in the summary that `traceml run` writes."""

    def __init__(self, _place: Path, _rank: int) -> None:
        import traceml_ai  # type: ignore[import-not-found]  # noqa: PLC0415 - in the peer's interpreter only

        self._traceml = traceml_ai
        self._traceml.init(mode="auto")
        self._model: Any = None
        self._step: Any = None

    def around(self) -> contextlib.AbstractContextManager[Any]:
        """Nothing: `traceml run` is around the process."""
        return contextlib.nullcontext()

    def meet(self, model: torch.nn.Module) -> None:
        """Keep the model for `trace_step`."""
        self._model = model

    def begin(self) -> None:
        """Enter `trace_step`, unless a micro-batch of the same step did."""
        if self._step is None:
            self._step = self._traceml.trace_step(self._model)
            self._step.__enter__()

    def end(self) -> None:
        """Leave `trace_step`."""
        self._step.__exit__(None, None, None)
        self._step = None

    def answer(self) -> Any:
        """None: see the summary."""
        return None


class Gpuprof:
    """`gpuprof.profile` with its automatic instrumentation, and its hook where gradients are exchanged."""

    def __init__(self, place: Path, rank: int) -> None:
        import gpuprof  # type: ignore[import-not-found]  # noqa: PLC0415 - in the peer's interpreter only

        self._gpuprof, self._rank = gpuprof, rank
        self._database = place / "gpuprof.db"
        self._profiler: Any = None
        self._run = 0

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Record this process as one run."""
        with self._gpuprof.profile(_RUN_NAME, db_path=str(self._database), summary=False) as self._profiler:
            yield
        self._run = self._profiler._run_id  # noqa: SLF001 - it has no public name

    def meet(self, model: torch.nn.Module) -> None:
        """Have it time the exchange of gradients."""
        if isinstance(model, torch.nn.parallel.DistributedDataParallel) and self._profiler is not None:
            self._profiler.instrument_ddp(model)

    def begin(self) -> None:
        """Nothing: it patches torch."""

    def end(self) -> None:
        """Nothing: it patches torch."""

    def answer(self) -> Any:
        """Its insights of this run, and in the first rank those of the group; call it after all ranks ended."""
        from gpuprof.insights import analyze, analyze_group  # type: ignore[import-not-found]  # noqa: PLC0415

        told = {"run": analyze(str(self._database), self._run)}
        group = os.environ.get("TORCHELASTIC_RUN_ID")
        if group and self._rank == 0:
            told["group"] = analyze_group(str(self._database), group)
        return told


class TensorBoardPlugin:
    """torch.profiler, and torch_tb_profiler's rules on the file that it wrote."""

    def __init__(self, place: Path, rank: int) -> None:
        self._place = place / f"rank{rank}"
        self._place.mkdir()
        self._profiler: Any = None

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Record a window of the training."""
        schedule = torch.profiler.schedule(wait=_WAIT, warmup=_WARMUP, active=_ACTIVE, repeat=1)
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], schedule=schedule, on_trace_ready=self._write
        ) as self._profiler:
            yield

    def _write(self, profiler: Any) -> None:
        profiler.export_chrome_trace(str(self._file()))

    def _file(self) -> Path:
        return self._place / "worker.pt.trace.json"

    def meet(self, model: torch.nn.Module) -> None:
        """Nothing."""

    def begin(self) -> None:
        """Nothing."""

    def end(self) -> None:
        """Tell torch's profiler that a step ended."""
        self._profiler.step()

    def answer(self) -> Any:
        """Its recommendations, and the mean time of each of its categories in us."""
        from torch_tb_profiler.profiler.data import RunProfileData  # type: ignore[import-not-found]  # noqa: PLC0415
        from torch_tb_profiler.profiler.overall_parser import ProfileRole  # type: ignore[import-not-found]  # noqa: PLC0415

        found = RunProfileData.parse("worker", 1, str(self._file()), str(self._place))
        costs = {role.name: found.avg_costs.costs[role] for role in ProfileRole}
        return {"recommendations": list(found.recommendations), "mean_us": costs, "steps": len(found.steps_costs)}


PEERS: Final[Mapping[str, tuple[str, Callable[[Path, int], Peer]]]] = {
    "traceml": ("traceml-ai", TraceML),
    "gpuprof": ("gpuprof", Gpuprof),
    "torch_tb_profiler": ("torch-tb-profiler", TensorBoardPlugin),
}
"""Peer to the name of its package and its class."""


def version_of(peer: str) -> str:
    """Version of the package in this interpreter."""
    return version(PEERS[peer][0])
