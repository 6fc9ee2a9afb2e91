"""A new detector is one new file: tests, docs page and diagnosis follow from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FILE = '''"""Detector of nothing in particular."""

import pandas as pd

from perfnb.detector import detector, example

STEPS = """rank step start_us duration_us
           0    1    0        100
           0    2    100      100
           1    1    0        100
           1    2    100      100"""


def phases(lost):
    parts = (("transfer", lost), ("forward", 100 - lost))
    rows = [f"{rank} {step} {phase} {us}" for rank in (0, 1) for step in (1, 2) for phase, us in parts]
    return "rank step phase wall_us\\n" + "\\n".join(rows)


@detector(
    family="data",
    title="Moving batches",
    claims=("transfer.wall",),
    injected_by="moved_batches",
    source="this test alone: a tenth of the step",
    not_to_confuse_with=("data_stall",),
    recorded_only_when="it is made up",
    flag_above=0.1,
    examples=(
        example("a fifth of the step", lost_share=0.2, steps=STEPS, phases=phases(20)),
        example("a twentieth", lost_share=0.05, steps=STEPS, phases=phases(5)),
    ),
)
def moved_batches(ledger: pd.DataFrame) -> pd.DataFrame:
    """Time that batches take to move. It matters because this test wants it to. It cannot be real."""
    return ledger[ledger["part"].eq("transfer.wall")].rename(columns={"time_us": "lost_us"})
'''

DIAGNOSE = """
import perfnb
from perfnb.catalogue import detectors
case = next(each for each in detectors() if each.name == "moved_batches").examples[0]
print([finding.detector for finding in perfnb.diagnose(case.run).possible])
"""


@pytest.fixture
def house(repository: Path, tmp_path: Path) -> Path:
    """A copy of what a detector's file meets, with one file more."""
    for name in ("perfnb", "scripts"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "test_detector_examples.py"):
        shutil.copy(repository / "tests" / name, tmp_path / "tests")
    shutil.copy(repository / "pyproject.toml", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "perfnb" / "detectors" / "moved_batches.py").write_text(FILE, encoding="utf-8")
    return tmp_path


def ran(house: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(house), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=house, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_file_in_the_folder_is_all_that_a_detector_needs(house: Path) -> None:
    diagnosed = ran(house, "-c", DIAGNOSE)
    tested = ran(house, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "moved_batches", "tests/test_detector_examples.py")
    ran(house, "scripts/render_docs.py")

    assert diagnosed.strip() == "['moved_batches']"
    assert "passed" in tested
    assert "\n## moved_batches\n" in (house / "docs" / "detectors.md").read_text(encoding="utf-8")
