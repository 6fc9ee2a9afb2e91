"""The tutorial command: a copy to work on, the originals untouched, and a page that loads nothing from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from perfnb.__main__ import main
from perfnb.tutorial import NOTEBOOK, SAMPLES, copy_tutorial

ROOT = Path(__file__).resolve().parent.parent
WHEEL_ROOT = "perfnb/tutorial_files"

pytest.importorskip("nbconvert", reason="nbconvert is not installed: pip install 'perfnb[lab]'")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install 'perfnb[test]'")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_copy_stands_as_in_the_repository(tmp_path: Path) -> None:
    notebook = copy_tutorial(tmp_path)

    assert notebook == tmp_path / NOTEBOOK
    assert notebook.read_bytes() == (ROOT / NOTEBOOK).read_bytes()
    for sample in SAMPLES:
        assert _content(tmp_path / sample) == _content(ROOT / sample)


def test_what_the_user_changed_in_the_copy_is_kept(tmp_path: Path) -> None:
    notebook = copy_tutorial(tmp_path)
    notebook.write_text("mine", encoding="utf-8")

    again = copy_tutorial(tmp_path)

    assert again.read_text(encoding="utf-8") == "mine"


@pytest.mark.slow
def test_run_to_a_page_it_shows_its_answers_loads_nothing_and_leaves_the_originals_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _content(ROOT / NOTEBOOK.parent), [_content(ROOT / sample) for sample in SAMPLES]
    page = tmp_path / "new folder" / "page.html"

    code = main(["tutorial", "--execute", "-o", str(page)])

    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert printed.out == f"wrote {page}\n"
    html = page.read_text(encoding="utf-8")
    assert "data_stall" in html
    assert re.findall(r"""(?:src|href)=["'](?:https?:)?//[^"']+""", html) == []
    assert before == (_content(ROOT / NOTEBOOK.parent), [_content(ROOT / sample) for sample in SAMPLES])


def test_a_cell_that_fails_is_one_line_and_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # a kernel that finds no perfnb
    monkeypatch.setenv("PYTHONPATH", str(_package_that_fails(tmp_path / "broken")))

    code = main(["tutorial", "--execute", "-o", str(tmp_path / "page.html")])

    printed = capsys.readouterr()
    assert code == 2
    assert printed.err.count("\n") == 1
    assert "did not run to its end" in printed.err
    assert not (tmp_path / "page.html").exists()


def test_the_wheel_holds_the_tutorial_and_its_samples_and_nothing_beside_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    assert f"{WHEEL_ROOT}/{NOTEBOOK}" in names
    for sample in SAMPLES:
        ours = {f"{WHEEL_ROOT}/{file.relative_to(ROOT)}" for file in (ROOT / sample).rglob("*") if file.is_file()}
        assert ours
        assert ours <= names
    assert "perfnb/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"perfnb"}


@pytest.mark.slow
def test_installed_from_the_wheel_it_runs_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}

    done = subprocess.run(
        [sys.executable, "-m", "perfnb", "tutorial", "--execute"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"wrote {tmp_path / 'tutorial.html'}\n")
    assert "data_stall" in (tmp_path / "tutorial.html").read_text(encoding="utf-8")


def _content(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and ".ipynb_checkpoints" not in file.parts]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _package_that_fails(folder: Path) -> Path:
    package = folder / "perfnb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('broken')\n", encoding="utf-8")
    return folder
