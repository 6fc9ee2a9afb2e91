"""The training that `perfnb validate` runs in a child process: a small model whose samples take as long as they are told to."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import perfnb

BATCH_SIZE = 8
_WIDTH = 64


def train(folder: Path, *, workers: int, sample_ms: float, steps: int) -> None:
    """Train a small model and record it.

    Parameters
    ----------
    folder
        Where the recording goes.
    workers
        Processes that load samples.
    sample_ms
        How long each sample takes to load: asleep, so that it costs no core.
    steps
        Steps to train.
    """
    import torch  # noqa: PLC0415 - in this process only

    class Samples(torch.utils.data.Dataset[Any]):  # type: ignore[misc] # Any to mypy, which does not follow torch
        def __len__(self) -> int:
            return BATCH_SIZE * steps

        def __getitem__(self, index: int) -> Any:
            time.sleep(sample_ms / 1000.0)
            return torch.full((_WIDTH,), index % 7 / 7.0), torch.ones(1)

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.ReLU(), torch.nn.Linear(_WIDTH, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = torch.utils.data.DataLoader(Samples(), batch_size=BATCH_SIZE, num_workers=workers)
    config = {"num_workers": workers, "batch_size": BATCH_SIZE}
    with perfnb.record(folder, config=config) as recorder:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            recorder.log(loss=float(loss))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--sample-ms", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    train(options.folder, workers=options.workers, sample_ms=options.sample_ms, steps=options.steps)
