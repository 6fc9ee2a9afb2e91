"""Records the logs of this folder: a plain loop that logs its own metrics, and a Trainer of Hugging Face; on a CPU."""  # noqa: INP001 - a program beside its data

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEPS, BATCH, WAIT_S = 60, 32, 0.0006


def main() -> None:
    """Write my_loop.jsonl, my_host.csv and trainer_state.json."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    record_loop()
    record_trainer()


def record_loop() -> None:
    """A loop whose samples wait on their store: every time is taken with time.perf_counter, in seconds."""
    import psutil  # noqa: PLC0415 - only needed to record
    import torch  # noqa: PLC0415

    class Waiting(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 20 * BATCH

        def __getitem__(self, index: int) -> torch.Tensor:
            time.sleep(WAIT_S)
            return torch.full((256,), index / 1000)

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    rows, samples, done = [], ["timestamp,cpu_percent,memory_percent,disk_io_read_bytes,network_io_recv_bytes"], threading.Event()

    def watch() -> None:
        psutil.cpu_percent()
        while not done.wait(0.25):
            disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
            read = disk.read_bytes if disk else 0
            samples.append(
                f"{time.time():.3f},{psutil.cpu_percent()},{psutil.virtual_memory().percent},{read},{network.bytes_recv}"
            )

    watcher = threading.Thread(target=watch)
    watcher.start()
    for epoch in range(STEPS // 20):
        batches = iter(torch.utils.data.DataLoader(Waiting(), batch_size=BATCH))
        for _ in range(20):
            marks = [time.perf_counter()]
            batch = next(batches)
            marks.append(time.perf_counter())
            loss = (model(batch) - batch).pow(2).mean()
            marks.append(time.perf_counter())
            optimizer.zero_grad()
            loss.backward()
            marks.append(time.perf_counter())
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            marks.append(time.perf_counter())
            data, forward, backward, update = (round(end - start, 5) for start, end in itertools.pairwise(marks))
            rows.append(
                {
                    "step": len(rows),
                    "epoch": epoch,
                    "timestamp": round(time.time(), 4),
                    "step_time": round(marks[-1] - marks[0], 5),
                    "data_loading_time": data,
                    "forward_time": forward,
                    "backward_time": backward,
                    "optimizer_time": update,
                    "loss": round(float(loss), 5),
                    "learning_rate": 1e-3,
                    "grad_norm": round(float(norm), 4),
                    "batch_size": BATCH,
                    "samples_per_second": round(BATCH / (marks[-1] - marks[0]), 1),
                }
            )
    done.set()
    watcher.join()
    (HERE / "my_loop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (HERE / "my_host.csv").write_text("\n".join(samples) + "\n", encoding="utf-8")


def record_trainer() -> None:
    """A Trainer of a small model, which writes trainer_state.json by itself."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            found = self.layer(x)
            return {"loss": torch.nn.functional.mse_loss(found, labels), "logits": found}

    torch.manual_seed(0)
    data = [{"x": torch.randn(8), "labels": torch.randn(1)} for _ in range(128)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=100,
            logging_steps=10,
            eval_strategy="steps",
            eval_steps=50,
            save_strategy="no",
            learning_rate=0.01,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(model=Tiny(), args=arguments, train_dataset=data, eval_dataset=data[:32])
        trainer.train()
        trainer.save_state()
        state = json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))
    (HERE / "trainer_state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
