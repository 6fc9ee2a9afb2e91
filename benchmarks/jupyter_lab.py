"""A JupyterLab of its own on a free port, and what a page has to do in it: for the browser tests and the latency benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError

ROOT: Final = Path(__file__).resolve().parent.parent
START_S: Final = 300
"""A loaded machine takes minutes to start JupyterLab."""

FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Of Chromium: it asks for nothing by itself."""

# The text of the first error, "done" once every code cell has its number, else false.
FINISHED: Final = """() => {
    const error = document.querySelector('[data-mime-type="application/vnd.jupyter.stderr"]');
    if (error) return error.textContent;
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
    return prompts.length && prompts.every(prompt => /\\[\\d+\\]/.test(prompt.textContent)) ? 'done' : false;
}"""


class NoLabError(RuntimeError):
    """JupyterLab did not start."""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: where it listens, and the folder that it serves."""

    address: str
    folder: Path

    def write(self, name: str, *cells: str) -> str:
        """Put a notebook with these code cells into the folder; the address that opens it."""
        code = [
            {"cell_type": "code", "id": f"cell{number}", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
            for number, source in enumerate(cells)
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = {"cells": code, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / name).write_text(json.dumps(notebook), encoding="utf-8")
        return self.url(name)

    def url(self, name: str) -> str:
        """The address that opens a notebook of the folder, with no workspace left from before."""
        return f"{self.address}/lab/tree/{name}?reset"

    def set_theme(self, theme: str) -> None:
        """Have JupyterLab look like "JupyterLab Light" or "JupyterLab Dark" from the next page on."""
        raw = json.dumps({"raw": json.dumps({"theme": theme})}).encode()
        self._ask("PUT", "/lab/api/settings/@jupyterlab/apputils-extension:themes", raw)

    def stop_kernels(self) -> None:
        """Shut every kernel down."""
        for session in json.loads(self._ask("GET", "/api/sessions")):
            self._ask("DELETE", f"/api/sessions/{session['id']}")

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.address}{path}", data, method=method)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return bytes(answer.read())


@contextlib.contextmanager
def started_lab(home: Path) -> Iterator[Lab]:
    """JupyterLab with config, data and workspaces in a folder of its own, as long as the context lasts.

    Raises
    ------
    NoLabError
        If it does not start; with the end of its log.
    """
    folders = {
        name: home / name for name in ("config", "data", "runtime", "workspaces", "settings", "ipython", "notebooks", "cache")
    }
    for folder in folders.values():
        folder.mkdir()
    # the question whether to fetch news would lie over the notebook
    (folders["settings"] / "@jupyterlab" / "apputils-extension").mkdir(parents=True)
    (folders["settings"] / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false"}'
    )
    port = free_port()
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folders["config"]),
        "JUPYTER_DATA_DIR": str(folders["data"]),
        "JUPYTER_RUNTIME_DIR": str(folders["runtime"]),
        "JUPYTERLAB_WORKSPACES_DIR": str(folders["workspaces"]),
        "JUPYTERLAB_SETTINGS_DIR": str(folders["settings"]),
        "IPYTHONDIR": str(folders["ipython"]),
        "XDG_CACHE_HOME": str(folders["cache"]),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONPATH": str(ROOT),
        "PERFNB_SAMPLES": str(ROOT / "data" / "samples"),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *(
            "--ServerApp.port_retries=0",
            "--ServerApp.disable_check_xsrf=True",
            "--IdentityProvider.token=",
            "--ServerApp.password=",
            f"--ServerApp.root_dir={folders['notebooks']}",
        ),
        *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
    ]
    with serving(command, environment, f"http://127.0.0.1:{port}", "/api", home) as address:
        yield Lab(address, folders["notebooks"])


@contextlib.contextmanager
def serving(command: list[str], environment: dict[str, str], address: str, path: str, home: Path) -> Iterator[str]:
    """A server's address, as long as the context lasts.

    Parameters
    ----------
    command, environment
        What to start.
    address, path
        Where it answers once it is up.
    home
        Folder that it starts in and logs into.

    Raises
    ------
    NoLabError
        If it does not answer.
    """
    log = home / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=home)  # noqa: S603 - of ours
        try:
            _wait(server, address + path, log)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:  # a loaded machine; there is nothing left that it should save
                server.kill()
                server.wait(timeout=30)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_all_cells(page: Any) -> None:
    """Run all cells of the notebook on a page, and wait until they are done.

    Raises
    ------
    NoLabError
        If a cell fails; with what it said.
    """
    page.locator(".jp-Notebook").wait_for()
    page.locator(".jp-StatusBar-Left", has_text="| Idle").wait_for()
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    done = page.wait_for_function(FINISHED).json_value()
    if done != "done":
        raise NoLabError(str(done))


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - our own server
                return
        except HTTPError:  # it answers, if only to say no
            return
        except (URLError, OSError):
            time.sleep(0.2)
    message = f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}"
    raise NoLabError(message)
