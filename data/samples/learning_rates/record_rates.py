"""Records the runs of this folder: one small network trained at three constant learning rates, which were chosen beforehand; on a CPU."""  # noqa: INP001, E501 - a program beside its data

from __future__ import annotations

import argparse
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
RATES = {"low": 0.001, "middle": 0.05, "high": 2.5}
STEPS, BATCH, EVALUATE_EVERY = 800, 64, 20


def main() -> None:
    """Write low.jsonl, middle.jsonl and high.jsonl."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, rate in RATES.items():
        rows = record(rate)
        (HERE / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def record(rate: float) -> list[dict[str, float | None]]:
    """Rows of one training: a network of two layers learns what another, fixed one says of random points, with noise."""
    import torch  # noqa: PLC0415 - only needed to record

    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
    points = torch.randn(2048 + 512, 16)
    with torch.no_grad():
        scores = 3.0 * teacher(points) + 0.5 * torch.randn(len(points), 4)
        labels = scores.argmax(dim=1)
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    loss_of = torch.nn.CrossEntropyLoss()
    rows: list[dict[str, float | None]] = []
    for step in range(STEPS):
        chosen = torch.randint(0, 2048, (BATCH,))
        optimizer.zero_grad()
        loss = loss_of(model(points[chosen]), labels[chosen])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
        optimizer.step()
        row: dict[str, float | None] = {"step": step, "loss": loss.item(), "learning_rate": rate, "grad_norm": norm.item()}
        if step % EVALUATE_EVERY == EVALUATE_EVERY - 1:
            with torch.no_grad():
                row["validation_loss"] = loss_of(model(points[2048:]), labels[2048:]).item()
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
