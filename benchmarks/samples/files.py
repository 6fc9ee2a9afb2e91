"""The files of a recorded run: traces, config.json and provenance.json, and the table of expected severities."""

import argparse
import csv
import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.samples.host import describe_machine, describe_versions
from benchmarks.samples.trace import write_trace
from benchmarks.samples.workloads import Config, Workload

PROGRAM = "benchmarks.samples.record"
TOLERANCE_SHARE = 0.02


def write_run(
    folder: Path, workload: Workload, variant: str, texts: list[str], found: dict[str, Any], chosen: argparse.Namespace
) -> None:
    """Write the files of one run: traces, config.json, provenance.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config: Config = workload.variants()[variant]
    for rank, text in enumerate(texts):
        write_trace(text, folder / f"rank{rank}.pt.trace.json.gz")
    write_json(config, folder / "config.json")
    written = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "provenance.json")
    options = ["--repeats", str(chosen.repeats), "--steps", str(chosen.steps)]
    provenance = {
        "run": workload.name,
        "variant": variant,
        "program": PROGRAM,
        "command": shlex.join(["python", "-m", PROGRAM, workload.name, *options]),
        "recorded_at": datetime.now(UTC).date().isoformat(),
        "noise_accepted": chosen.accept_noise,
        "versions": describe_versions(),
        "machine": describe_machine(),
        "seed": config["seed"],
        **found,
        "files": {path.name: path.stat().st_size for path in written},
    }
    write_json(provenance, folder / "provenance.json")


def write_json(value: Any, path: Path) -> None:
    """Write a value as indented JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_expected(folder: Path) -> None:
    """Write expected.csv from the provenance of the runs that are there: one row per run with a cause."""
    with (folder / "expected.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["run", "detector", "severity", "tolerance"])
        for path in sorted(folder.glob("*/provenance.json")):
            truth = json.loads(path.read_text()).get("truth")  # the samples of GPUs state theirs in their own table
            if truth and truth["detector"]:
                table.writerow([path.parent.name, truth["detector"], f"{truth['share']:.4f}", TOLERANCE_SHARE])
