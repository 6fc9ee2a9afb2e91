"""Fixtures and rules of all tests: the corpus, no network, repeatable examples, no browser test skipped where it is required."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
_CORPUS = Path(os.environ.get("PERFNB_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
_BROWSER_IS_REQUIRED = os.environ.get("PERFNB_REQUIRE_BROWSER") == "1"
_HERE = ("127.0.0.1", "::1", "localhost")

_ALONE = ("browser", "record", "benchmarks", "test_kernel.py", "test_tutorial.py", "test_plan.py", "test_monitor.py")
"""Folders and files whose tests measure time, fill the cores themselves or wait for a server: they run one by one."""
_BESIDE_OTHERS = ("test_prediction_benchmark.py", "test_self_replay.py", "test_training_benchmark.py", "test_trim_trace.py")
"""Files in such folders that do none of that: they compute from what was recorded."""

# Loaded machines miss any deadline; examples drawn anew would make a failure that nobody can repeat.
hypothesis.settings.register_profile("perfnb", deadline=None, derandomize=True)
hypothesis.settings.load_profile("perfnb")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what must not run beside other tests."""
    for item in items:
        is_alone = set(item.path.relative_to(REPOSITORY).parts) & set(_ALONE) and item.path.name not in _BESIDE_OTHERS
        if is_alone and "tests" in item.path.parts:
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder of the corpus of recorded traces, read in place."""
    if not _CORPUS.is_dir():
        pytest.skip("the corpus is not there: name its folder in PERFNB_CORPUS")
    return _CORPUS


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Keep the accuracy ledger and the cache of whoever runs the tests out of them, and them out of those."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERFNB_OUTCOMES", str(tmp_path_factory.mktemp("outcomes")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Generator[None]:
    """Refuse every connection that leaves this machine: perfnb fetches and sends nothing."""
    connect = socket.socket.connect

    def local_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _HERE:
            message = f"a test connects to {address[0]}: perfnb fetches and sends nothing"
            raise PermissionError(message)
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_connect)
        yield


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run a test that is marked no_cover untraced; pytest-cov alone leaves one of two measurements on in a worker of xdist."""
    tracer = sys.gettrace() if item.get_closest_marker("no_cover") else None
    if tracer is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skipped browser test a failed one where the browser is required."""
    report = yield
    if _BROWSER_IS_REQUIRED and report.skipped and item.get_closest_marker("browser"):
        report.outcome = "failed"
        report.longrepr = f"PERFNB_REQUIRE_BROWSER=1, but this browser test was skipped: {report.longrepr}"
    return report
