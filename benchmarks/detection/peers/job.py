"""One case under one peer: `python -m benchmarks.detection.peers.job SPEC` runs in an interpreter that has the peer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self, cast

import torch
import torch.distributed as dist
from torch import multiprocessing

from benchmarks.detection import controls, single
from benchmarks.detection.case import Case
from benchmarks.detection.peers.wrappers import PEERS, Peer, version_of
from benchmarks.detection.ranks_faults import sides_of
from benchmarks.detection.ranks_job import RANKS, end_with_parent
from benchmarks.detection.ranks_link import limit
from benchmarks.detection.ranks_training import prepare
from benchmarks.detection.training import Pair, Plan, State, train
from perfnb.record.recorder import Recorder

GROUP: Final = "case"


class InsteadOfRecorder:
    """Stands where perfnb's recorder stands in the training loop, and enters the peer instead: nothing of perfnb is at work."""

    def __init__(self, peer: Peer) -> None:
        self._around = peer.around()

    def __enter__(self) -> Self:
        self._around.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._around.__exit__(*error)

    def log(self, **_: float) -> None:
        """Nothing: peers are told no values."""


def main(words: list[str]) -> int:
    """Train the case and write what the peer says; where it has ranks, in two processes."""
    end_with_parent(None)  # under TraceML it is torchrun that starts it
    told = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    case = Case.from_json(told["case"])
    if case.kind != "ranks":
        peer = _peer(told, 0)
        _train_alone(case, float(told["amount"]), int(told["steps"]), peer)
        _write(told, 0, peer)
    elif "RANK" in os.environ:  # started by torchrun
        _rank(int(os.environ["RANK"]), "env://", told)
    else:
        meeting = f"file://{told['place']}/meeting"
        multiprocessing.spawn(_rank, args=(meeting, told), nprocs=RANKS)
    return 0


def plan_of(case: Case, amount: float) -> Plan:
    """The training of a case in one process, with its fault, so much of it."""
    base = single.base_plan(case)
    if case.control:
        healthy: Plan = controls.BY_ID[case.control].arrange(base)
        return healthy
    plan: Plan = single.BY_ID[case.faults[0]].inject(base, amount)[0]
    return plan


def under(plan: Plan, peer: Peer) -> Plan:
    """The plan with the peer's marks round each step: from the batch that is there to the end of all that the loop does."""

    def meet(parts: Any) -> Any:
        changed = parts if plan.change is None else plan.change(parts)
        peer.meet(changed.model)
        return changed

    def begin(step: int, batch: Pair) -> Pair:
        peer.begin()
        return batch if plan.batches is None else plan.batches(step, batch)

    def end(_: State) -> None:
        peer.end()

    return replace(plan, change=meet, batches=begin, after_step=(*plan.after_step, end))


def _train_alone(case: Case, amount: float, steps: int, peer: Peer) -> None:
    recorder = cast("Recorder", InsteadOfRecorder(peer))
    train(under(plan_of(case, amount), peer), steps, recorder, case.seed)


def _rank(rank: int, meeting: str, told: Mapping[str, Any]) -> None:
    end_with_parent(None)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS), GLOO_SOCKET_IFNAME="lo")
    os.environ.setdefault("TORCHELASTIC_RUN_ID", GROUP)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)
    training = sides_of(Case.from_json(told["case"]))[0]
    if told["amount"]:
        training = training.sleeping(float(told["amount"]), rank=1)
    if rank == 0 and os.environ.get("PERFNB_OWN_NETWORK"):
        limit(training.link_bit_per_s)
    peer = _peer(told, rank)
    setup = prepare(training, rank)
    with peer.around():
        peer.meet(setup.model)
        for _ in setup.steps(int(told["steps"]), begin=peer.begin):
            peer.end()
    dist.barrier()
    _write(told, rank, peer)
    dist.barrier()
    dist.destroy_process_group()


def _peer(told: Mapping[str, Any], rank: int) -> Peer:
    return PEERS[told["peer"]][1](Path(told["place"]), rank)


def _write(told: Mapping[str, Any], rank: int, peer: Peer) -> None:
    answer = {"version": version_of(told["peer"]), "said": peer.answer()}
    (Path(told["place"]) / f"answer{rank}.json").write_text(json.dumps(answer, default=str), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
