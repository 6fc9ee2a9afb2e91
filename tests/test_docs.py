"""Pages rendered from the code are as the code gives them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_rendered_pages_are_up_to_date(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/render_docs.py", "--check"], cwd=repository, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_every_detector_and_fix_has_its_page(repository: Path) -> None:
    for folder in ("detectors", "fixes"):
        page = (repository / "docs" / f"{folder}.md").read_text(encoding="utf-8")
        files = sorted(file.stem for file in (repository / "perfnb" / folder).glob("*.py") if file.stem != "__init__")

        assert files
        assert all(f"\n## {name}\n" in page for name in files)
