"""The repository itself: files that start with what they are, no trace of a machine, commands that the README promises."""

from __future__ import annotations

import gzip
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import perfnb
from perfnb.__main__ import _parser

ROOT = Path(__file__).resolve().parent.parent
LONGEST_MODULE = 300

# Folders of the machines that perfnb is written on, package registries, and names that only one machine knows. Each is put
# together from parts, so that this file does not hold it.
_FOLDERS = ("work", "farm", "root", "opt/wheels", "opt/pypi")
_HOSTS = (
    *(("pypi", "org"), ("pythonhosted", "org"), ("download.pytorch", "org")),
    *(("npmjs", "org"), ("npmjs", "com"), ("deb.debian", "org")),
)
_MACHINE = re.compile(
    "|".join((*(rf"(?<![\w.])/{folder}/" for folder in _FOLDERS), *(rf"\b{host}\.{end}\b" for host, end in _HOSTS)))
)
_HINTS = tuple(text.encode() for text in (*(f"/{folder}/" for folder in _FOLDERS), *(host for host, _ in _HOSTS)))
"""What every match of `_MACHINE` holds: looking for it first spares the expression nearly all files."""


def _files(*patterns: str) -> list[Path]:
    """Files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],  # noqa: S607 - git of the path
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if listed.returncode:
        pytest.skip("the files of the project are not in a git repository")
    return sorted({ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()})


def test_no_file_holds_a_path_of_a_machine_or_a_registry() -> None:
    found = []
    for file in _files():
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
        if any(each in content for each in _HINTS):
            text = content.decode(errors="replace")
            found += [f"{file.relative_to(ROOT)}: {match[0]}" for match in _MACHINE.finditer(text)]

    assert found == []


def test_every_python_file_starts_with_a_sentence_on_what_it_is() -> None:
    without = [
        str(file.relative_to(ROOT))
        for file in _files("*.py")
        if not re.match(r'(#!.*\n)?r?"""[^"\n]*[.:;,\w`)]', file.read_text(encoding="utf-8"))
    ]

    assert without == []


def test_no_module_is_over_300_lines() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in _files("perfnb/*.py", "perfnb/**/*.py")}

    assert {str(file.relative_to(ROOT)): length for file, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_file_promises_what_is_not_there() -> None:
    promise = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")

    assert [str(file.relative_to(ROOT)) for file in _files("*.py", "*.sh") if promise.search(file.read_text("utf-8"))] == []


@pytest.mark.parametrize("name", [name for name in perfnb.__all__ if name != "__version__"])
def test_every_public_name_says_what_it_takes_and_gives(name: str) -> None:
    item = getattr(perfnb, name)
    doc = inspect.getdoc(item) or ""
    module = sys.modules[item.__module__]

    assert doc.partition("\n")[0].endswith((".", ":"))
    if inspect.isclass(item):
        # a class with fields lists them, or carries one example that shows them
        assert re.search(r"^(Attributes|Examples|Parameters)\n-+$", doc, re.MULTILINE), module
        return
    signature = inspect.signature(item)
    if signature.parameters:
        assert re.search(r"^Parameters\n-{10}$", doc, re.MULTILINE)
        for parameter in signature.parameters:
            assert re.search(rf"^[*\w, ]*\b{parameter}\b[*\w, ]*$", doc, re.MULTILINE), parameter
    if signature.return_annotation not in (None, "None"):
        assert re.search(r"^Returns\n-{7}$", doc, re.MULTILINE)


def test_the_two_commands_of_the_readme_exist_and_each_makes_its_own_environment() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    for script in ("scripts/tutorial.sh", "scripts/test.sh"):
        assert f"\n    bash {script}\n" in readme
        text = (ROOT / script).read_text(encoding="utf-8")
        assert ". scripts/venv.sh" in text
        assert subprocess.run(["bash", "-n", str(ROOT / script)], check=False).returncode == 0  # noqa: S607 - bash of the path


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "bash scripts/test.sh" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_every_shell_line_of_the_readme_is_one_that_the_command_line_takes() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.partition("#")[0].split() for line in re.findall(r"^    perfnb (.*)$", readme, re.MULTILINE)]

    assert len(lines) >= 5
    for words in lines:
        assert callable(_parser().parse_args(words).answer)


def test_every_python_name_of_the_readme_is_public() -> None:
    named = set(re.findall(r"\bperfnb\.([a-z_]+)\(", (ROOT / "README.md").read_text(encoding="utf-8")))

    assert named
    assert named <= set(perfnb.__all__)


def test_every_file_that_the_readme_links_to_exists() -> None:
    linked = re.findall(r"\]\(([^):]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert [name for name in linked if not (ROOT / name).exists()] == []


def test_torch_is_no_core_dependency_and_is_pinned_where_it_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert [each for each in project["dependencies"] if each.startswith("torch")] == []
    assert re.fullmatch(r"torch==[\d.]+\n", (ROOT / "constraints-cpu.txt").read_text(encoding="utf-8"))
