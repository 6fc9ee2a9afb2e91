"""Two ranks under torchrun: each records its own part of one run, and what they wait for of each other is communication."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perfnb
from perfnb.run import Run

torch = pytest.importorskip("torch")

from perfnb.record import distributed  # noqa: E402 - torch decides whether there is anything to test

pytestmark = pytest.mark.torch

SCRIPT = '''
import contextlib, json, os, sys, time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import perfnb

folder = Path(sys.argv[1])
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
told = {}


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(6)])


def loader(batches):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8 * batches, 256)), batch_size=8)


def plain():
    """Rank 1 comes 20 ms late to every second step; rank 0 notes when its own gradients were ready."""
    ready = [0.0]

    def noting(state, bucket):
        ready[0] = time.perf_counter()
        return allreduce_hook(state, bucket)

    ddp = torch.nn.parallel.DistributedDataParallel(model())
    ddp.register_comm_hook(None, noting)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01)
    waits = []
    with perfnb.record(folder / "plain"):
        for number, (inputs,) in enumerate(loader(24)):
            loss = ddp(inputs).square().mean()
            if rank == 1:
                time.sleep(0.02 * (number % 2))
            loss.backward()
            waits.append(1e6 * (time.perf_counter() - ready[0]))
            optimizer.step()
            optimizer.zero_grad()
    told["waits"] = waits


def own_collectives():
    layers = model()
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.01)
    with perfnb.record(folder / "own"):
        for (inputs,) in loader(6):
            layers(inputs).square().mean().backward()
            if rank == 1:
                time.sleep(0.02)
            for parameter in layers.parameters():
                dist.all_reduce(parameter.grad)
            optimizer.step()
            optimizer.zero_grad()


def accumulating():
    ddp = torch.nn.parallel.DistributedDataParallel(model())
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01)
    with perfnb.record(folder / "accumulating"):
        for number, (inputs,) in enumerate(loader(12)):
            last = number % 2 == 1
            with contextlib.nullcontext() if last else ddp.no_sync():
                loss = ddp(inputs).square().mean()
                if rank == 1:
                    time.sleep(0.02)
                loss.backward()
            if last:
                optimizer.step()
                optimizer.zero_grad()


def sharded():
    from torch.distributed.fsdp import fully_shard

    layers = model()
    for layer in layers:
        fully_shard(layer)
    fully_shard(layers)
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.01)
    with perfnb.record(folder / "sharded"):
        for (inputs,) in loader(6):
            layers(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()


def traced():
    ddp = torch.nn.parallel.DistributedDataParallel(model())
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01)
    with perfnb.record(folder / "traced", trace=2):
        for (inputs,) in loader(16):
            ddp(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()


for train in (plain, own_collectives, accumulating, sharded, traced):
    try:
        train()
    except Exception as error:
        told[train.__name__] = f"{type(error).__name__}: {error}"
    dist.barrier()
(folder / f"told{rank}.json").write_text(json.dumps(told))
dist.destroy_process_group()
'''


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two ranks recorded."""
    folder = tmp_path_factory.mktemp("job")
    script = folder / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _told(job: Path, rank: int) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((job / f"told{rank}.json").read_text(encoding="utf-8"))
    return told


def _wall(run: Run, rank: int, phase: str) -> Any:
    """Microseconds of a phase by step."""
    rows = run.phases[(run.phases["rank"] == rank) & (run.phases["phase"] == phase)]
    return rows.set_index("step")["wall_us"]


def _phases(run: Run, rank: int, step: int) -> set[str]:
    rows = run.phases[(run.phases["rank"] == rank) & (run.phases["step"] == step)]
    return set(rows["phase"])


def _reasons(run: Run) -> list[str]:
    gaps = run.gaps[(run.gaps["table"] == "phases") & (run.gaps["column"] == "communication")]
    return gaps["reason"].to_list()


def test_each_rank_records_its_own_part_of_one_run(job: Path) -> None:
    run = perfnb.read_run(job / "plain")

    assert run.ranks == (0, 1)
    assert run.world_size == 2
    assert [(each.rank, each.state) for each in run.recordings] == [(0, "finished"), (1, "finished")]
    assert run.steps.groupby("rank")["step"].count().to_dict() == {0: 24, 1: 24}
    sums = run.phases.groupby(["rank", "step"])["wall_us"].sum()
    assert (sums - run.steps.set_index(["rank", "step"])["duration_us"]).abs().max() < 1e-3
    assert run.training["batch_size"].to_list() == [8.0] * 48


def test_what_backward_only_waits_for_is_communication(job: Path) -> None:
    run = perfnb.read_run(job / "plain")
    waited = _wall(run, 0, "communication")
    truth = _told(job, 0)["waits"]

    late = [step for step in range(5, 24) if step % 2]
    errors = sorted(abs(waited[step] - truth[step]) / truth[step] for step in late)
    assert errors[len(errors) // 2] < 0.03
    assert min(waited[step] for step in late) > 18_000
    assert _wall(run, 0, "backward")[late].median() < 18_000
    assert _reasons(run) == []


def test_collectives_that_the_loop_calls_itself_are_communication(job: Path) -> None:
    run = perfnb.read_run(job / "own")

    assert _wall(run, 0, "communication").min() > 18_000
    assert _wall(run, 1, "communication").median() < _wall(run, 0, "communication").median()
    assert _phases(run, 0, 3) == {"data", "forward", "backward", "communication", "optimizer", "other"}


def test_the_settings_of_the_data_parallel_module_stand_in_the_config(job: Path) -> None:
    config = perfnb.read_run(job / "accumulating").config

    assert config["parallelism"] == "ddp"
    assert config["bucket_cap_mb"] is None  # torch's default, which is not the same as 25
    assert config["find_unused_parameters"] is False
    assert config["backend"] == "gloo"


def test_a_backward_pass_without_exchange_is_all_backward(job: Path) -> None:
    run = perfnb.read_run(job / "accumulating")

    assert run.steps["micro_batches"].to_list() == [2] * 12
    assert len(_wall(run, 0, "communication")) == 6
    # rank 1 comes late to both micro-batches, rank 0 waits for it once
    assert 30_000 < _wall(run, 0, "communication").median() + _wall(run, 0, "backward").median() < 60_000


def test_what_fully_sharded_models_exchange_is_said_to_be_unseen(job: Path) -> None:
    assert "sharded" not in _told(job, 0)

    run = perfnb.read_run(job / "sharded")

    assert run.steps.groupby("rank")["step"].count().to_dict() == {0: 6, 1: 6}
    assert _phases(run, 0, 3) == {"data", "forward", "backward", "optimizer", "other"}
    assert all("FSDP" in reason and "record(trace=5)" in reason for reason in _reasons(run))
    assert len(_reasons(run)) == 2


def test_a_window_on_each_rank_shows_the_collectives(job: Path) -> None:
    run = perfnb.read_run(job / "traced")

    assert [path.parent.name for path in sorted((job / "traced").rglob("trace*.json.gz"))] == ["rank0", "rank1"]
    assert run.steps.groupby("rank")["is_profiled"].sum().to_dict() == {0: 5, 1: 5}
    assert set(run.collectives["rank"]) == {0, 1}
    assert "host_ops" in run.signals


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def _train(model: Any, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.zeros(4, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_very_short_steps_are_not_asked_and_it_is_said(one_rank: None) -> None:
    ddp = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 1))

    with perfnb.record() as recorder:
        _train(ddp, 60)

    run = recorder.run
    assert [reason for reason in _reasons(run) if "asking DDP how long backward waited would cost" in reason]
    assert _wall(run, 0, "communication").index.max() < 30


def test_a_torch_that_does_not_tell_ends_no_training(one_rank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_times", lambda module: module.no_such_thing)
    ddp = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 1))

    with perfnb.record() as recorder:
        _train(ddp, 8)

    assert len(recorder.run.steps) == 8
    assert ["this torch's DDP does not say" in reason for reason in _reasons(recorder.run)] == [True]


def test_a_loop_that_goes_on_after_the_recording_is_asked_no_more(one_rank: None) -> None:
    ddp = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 1))
    with perfnb.record():
        _train(ddp, 8)

    _train(ddp, 20)
    told = ddp._get_ddp_logging_data()

    assert told["iteration"] < 12  # torch looks in one of 100 iterations past the first ten
