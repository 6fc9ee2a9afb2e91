"""How near the gradient noise scale of micro-batches comes to the exact one: python -m benchmarks.training noise_scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.training.noise_scale_tasks import SAMPLES, Task, exact, tasks, trained
from perfnb.outcomes.accuracy import wilson
from perfnb.training.noise_scale import NoiseScale, gradient_noise_scale
from perfnb.training.probe_gradients import GradientSquares

BATCH: Final = 64
REPEATS: Final = 20
CHECKPOINTS: Final = (0, 20)
"""Steps of SGD at batch 64 after which the scale is taken."""

MOST_STEPS: Final = 1_025
WITHIN: Final = 2.0


class Row(NamedTuple):
    """Repeats of one setting at one checkpoint."""

    task: str
    checkpoint: int
    micro_batches: int
    exact: float
    repeats: int
    spoke: int
    within: int
    median_steps: float
    median: float


def estimated(task: Task, parts: int, seed: int) -> NoiseScale | None:
    """What the product says of a loop of gradient accumulation at frozen parameters; None where it does not speak.

    Only the first micro-batch's gradient and the whole one are read, as in any accumulating loop. Steps are added until the rule
    of training.md 8 allows to speak, doubled from eight on, up to 1,024.
    """
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.0)
    done, wanted = 0, 9  # the first step only counts micro-batches
    with GradientSquares(task.model, optimizer, batch_size=BATCH) as squares:
        while wanted <= MOST_STEPS:
            for _ in range(wanted - done):
                optimizer.zero_grad()
                for rows in torch.randint(0, SAMPLES, (BATCH,)).split(BATCH // parts):
                    (task.loss(task.model(task.inputs[rows]), task.targets[rows]) / parts).backward()
                optimizer.step()
            done, wanted = wanted, 2 * wanted - 1
            told = gradient_noise_scale(squares.frame(), last=done - 1)
            if isinstance(told, NoiseScale):
                return told
    return None


def rows(repeats: int = REPEATS) -> Iterator[Row]:
    """One row per task, checkpoint and number of micro-batches."""
    for task in tasks():
        reached = 0
        for checkpoint in CHECKPOINTS:
            torch.manual_seed(checkpoint)
            trained(task, checkpoint - reached)
            reached = checkpoint
            truth = exact(task)
            for parts in (2, 8):
                told = [estimated(task, parts, 1_000 * checkpoint + repeat) for repeat in range(repeats)]
                known = [each for each in told if each is not None]
                near = [each for each in known if truth / WITHIN <= each.value <= truth * WITHIN]
                yield Row(
                    task.name,
                    checkpoint,
                    parts,
                    truth,
                    repeats,
                    len(known),
                    len(near),
                    float(np.median([each.steps for each in known])) if known else float("nan"),
                    float(np.median([each.value for each in known])) if known else float("nan"),
                )


def main(repeats: int = REPEATS) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"Gradient noise scale against the exact one: batch {BATCH}, SGD, frozen parameters, {repeats} repeats each")
    print(f"{'task':<22}{'steps done':>11}{'micro':>7}{'exact':>9}{'spoke':>8}{'within 2x':>11}{'steps':>8}{'median':>9}")
    made = []
    for row in tqdm(rows(repeats), total=2 * len(CHECKPOINTS) * 2, unit="setting", leave=False):
        made.append(row)
        tqdm.write(
            f"{row.task:<22}{row.checkpoint:>11}{row.micro_batches:>7}{row.exact:>9.1f}{row.spoke:>8}{row.within:>11}"
            f"{row.median_steps:>8.0f}{row.median:>9.1f}"
        )
    for name in dict.fromkeys(row.task for row in made):
        spoke, near = (sum(getattr(row, field) for row in made if row.task == name) for field in ("spoke", "within"))
        low, high = wilson(near, spoke)
        asked = sum(row.repeats for row in made if row.task == name)
        share = near / spoke if spoke else float("nan")
        print(f"{name}: within a factor 2 in {near} of {spoke} ({share:.3f}, 95 % {low:.3f} to {high:.3f}), {asked} asked")


if __name__ == "__main__":
    main()
