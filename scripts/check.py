"""Every check of the project; `python scripts/check.py ruff mypy` runs only those whose name starts so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUM = re.compile(r"^(Found|Success|All checks|Contracts:|TOTAL|Coverage failure)|\b(passed|failed|formatted|error)\b")
COVERAGE = ("--cov", "--cov-report=", "--cov-fail-under=0")  # each part alone covers less: the report of both decides
NO_NBVAL = ("-p", "no:nbval")  # loading it takes seconds of each process, and only the notebooks need it
BESIDE = ("-n", "2", "--dist", "loadfile")
SANITIZE = ("--nbval-sanitize-with", "tests/sanitize.cfg")


@dataclass(frozen=True, slots=True)
class Check:
    """One command that exits with zero where all is well."""

    name: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        """The command, run by the interpreter that runs this script, so that no tool of another environment is met."""
        return [sys.executable, *self.arguments]


@dataclass(frozen=True, slots=True)
class Result:
    """How a check went: its exit code, all that it printed, and how long it took."""

    check: Check
    code: int
    output: str
    seconds: float

    @property
    def closing_line(self) -> str:
        """The last line that sums the check up, else its last line, without the bars that pytest draws around it."""
        lines = [line.strip("= ") for line in self.output.splitlines() if line.strip("= ")]
        sums = [line for line in lines if SUM.search(line)]
        return (sums or lines or [""])[-1]


CHECKS = (
    Check("ruff format", ("-m", "ruff", "format", "--check", ".")),
    Check("ruff check", ("-m", "ruff", "check", ".")),
    Check("mypy --strict", ("-m", "mypy")),
    Check("import-linter", ("-c", "from importlinter.cli import lint_imports_command as check; check()", "--no-logo")),
    Check("pytest with doctests", ("-m", "pytest", "-m", "not alone", *NO_NBVAL, *BESIDE, *COVERAGE)),
    Check("pytest one by one", ("-m", "pytest", "-m", "alone", "--cov-append", *NO_NBVAL, *COVERAGE)),
    Check("branch coverage", ("-m", "coverage", "report", "--sort=cover")),
    Check("notebooks, strict nbval", ("-m", "pytest", "--nbval", "--nbval-current-env", *SANITIZE, *BESIDE, "notebooks")),
)


def main(names: list[str]) -> int:
    """Run the checks, each even if one before it failed; the exit code says whether all passed."""
    chosen = [check for check in CHECKS if not names or any(check.name.startswith(name) for name in names)]
    if not chosen:
        names_of_checks = ", ".join(check.name for check in CHECKS)
        print(f"no check starts with {' or '.join(names)}: there are {names_of_checks}", file=sys.stderr)
        return 2
    width = max(len(check.name) for check in chosen)
    with tempfile.TemporaryDirectory(prefix="perfnb-check-") as scratch:
        results = [_shown(_run(check, _environment(Path(scratch))), width) for check in chosen]
    failed = [result.check.name for result in results if result.code]
    seconds = sum(result.seconds for result in results)
    print(f"{len(results) - len(failed)} of {len(results)} checks passed in {seconds:.0f} s", end="")
    print(f"; failed: {', '.join(failed)}" if failed else "")
    return 1 if failed else 0


def _environment(scratch: Path) -> dict[str, str]:
    """The environment of this process, but with settings of Jupyter and IPython that belong to no user, and with bytecode kept.

    Hundreds of processes that tests start would each compile perfnb anew.
    """
    return {
        **os.environ,
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_CONFIG_DIR": str(scratch / "jupyter"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONUTF8": "1",
    }


def _run(check: Check, environment: dict[str, str]) -> Result:
    start = time.monotonic()
    done = subprocess.run(
        check.command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return Result(check, done.returncode, done.stdout, time.monotonic() - start)


def _shown(result: Result, width: int) -> Result:
    """The result, after its line was printed, and where it failed all that the check printed before that line."""
    if result.code:
        print(f"--- {result.check.name}: python {' '.join(result.check.arguments)}\n{result.output.rstrip()}\n---")
    sign = "FAILED" if result.code else "ok"
    print(f"{sign:6}  {result.check.name:{width}}  {result.seconds:6.1f} s  {result.closing_line}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
