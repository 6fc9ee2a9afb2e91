"""`import perfnb` costs next to nothing, and its public names stay what they are whatever is imported in which order."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType

import pytest

import perfnb

# Whoever imports perfnb pays for none of these before using what needs them.
HEAVY = ("torch", "altair", "ipywidgets", "pandas", "numpy", "IPython", "vl_convert", "pynvml", "psutil")
SAMPLE = Path(__file__).resolve().parent.parent / "data" / "samples" / "slow_loader"
LARGEST_SHARE_OF_PANDAS = 1.3

# Public functions whose module has their name: Python binds a submodule over them when it is imported.
SAME_NAME = tuple(name for name, place in perfnb._PLACES.items() if place == f"perfnb.{name}")

ORDERS = {
    "submodule first": "\n".join(f"import perfnb.{name}" for name in SAME_NAME),
    "function first": "import perfnb\n" + "\n".join(f"perfnb.{name}\nimport perfnb.{name}" for name in SAME_NAME),
    "from the submodule": "\n".join(f"from perfnb.{name} import {name} as own_{name}" for name in SAME_NAME),
    "from the package, then the submodule": "\n".join(f"from perfnb import {name}\nimport perfnb.{name}" for name in SAME_NAME),
    "by name": "import importlib\n" + "\n".join(f"importlib.import_module('perfnb.{name}')" for name in SAME_NAME),
    "everything": "from perfnb import *\nimport perfnb.magics",
}


def test_the_functions_with_a_module_of_the_same_name_are_known() -> None:
    assert set(SAME_NAME) == {"apply", "diagnose", "suggest", "verify"}


def test_importing_perfnb_loads_no_heavy_library() -> None:
    loaded = _printed(f"import sys, json, perfnb; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))")

    assert json.loads(loaded) == []


def test_importing_perfnb_takes_at_most_a_third_longer_than_importing_pandas() -> None:
    # interleaved, and the best of each: another process's load then meets both alike
    times = [(_seconds("import perfnb"), _seconds("import pandas")) for _ in range(5)]

    ours, theirs = (min(column) for column in zip(*times, strict=True))

    assert ours <= LARGEST_SHARE_OF_PANDAS * theirs


@pytest.mark.parametrize("name", perfnb.__all__)
def test_every_public_name_can_be_loaded(name: str) -> None:
    assert getattr(perfnb, name) is not None
    assert name in dir(perfnb)


def test_what_type_checkers_see_is_what_is_loaded() -> None:
    tree = ast.parse(Path(perfnb.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    loaded = {name: place if ":" in place else f"{place}:{name}" for name, place in perfnb._PLACES.items()}

    assert seen == loaded
    assert sorted(perfnb.__all__) == sorted([*loaded, "__version__"])


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'diagnosis': its public names are .*diagnose"):
        perfnb.diagnosis  # noqa: B018 - looking it up is the test


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_public_name_is_the_function_whatever_was_imported_first(order: str) -> None:
    kinds = _printed(
        f"{order}\n"
        "import json, sys, perfnb\n"
        f"print(json.dumps([getattr(perfnb, name) is getattr(sys.modules['perfnb.' + name], name) for name in {SAME_NAME}]))"
    )

    assert json.loads(kinds) == [True] * len(SAME_NAME)


@pytest.mark.parametrize("name", SAME_NAME)
def test_a_submodule_can_still_be_read_from(name: str) -> None:
    function = getattr(perfnb, name)

    assert isinstance(function, FunctionType)
    assert function.__module__ == f"perfnb.{name}"
    assert getattr(sys.modules[f"perfnb.{name}"], name) is function


@pytest.mark.parametrize("first", ["import perfnb.record.hooks", "from perfnb.record import hooks", "from perfnb import record"])
def test_record_is_the_function_although_a_package_has_its_name(first: str) -> None:
    said = _printed(
        f"{first}\nimport perfnb\nfrom perfnb.record.frameworks import huggingface\nimport perfnb.record.marks\n"
        "print(perfnb.record.__name__, perfnb.record.__module__, huggingface.__name__)"
    )

    assert said == "record perfnb.record.begin perfnb.record.frameworks.huggingface"


def test_other_submodules_are_bound_as_python_does() -> None:
    assert _printed("import perfnb.errors; print(perfnb.errors.PerfnbError.__name__)") == "PerfnbError"


def test_importing_perfnb_in_a_notebook_shows_its_values_by_their_faces_and_loads_nothing_heavy() -> None:
    said = _printed(
        "import json, sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "import perfnb\n"
        "loaded = [name for name in ('torch', 'altair', 'ipywidgets', 'pandas') if name in sys.modules]\n"
        "data, _ = shell.display_formatter.format(perfnb.Unknown('no steps', 'a trace with steps'))\n"
        "print(json.dumps([loaded, sorted(data), 'no steps' in data['text/plain']]))"
    )

    assert json.loads(said) == [[], ["text/html", "text/markdown", "text/plain"], True]


def test_a_trace_is_analysed_where_none_of_the_libraries_of_notebooks_and_measurements_is_installed() -> None:
    absent = ("torch", "altair", "ipywidgets", "IPython", "vl_convert", "anywidget", "pynvml", "psutil")

    said = _printed(
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from perfnb.__main__ import main\n"
        f"sys.exit(main(['analyze', {str(SAMPLE)!r}]))"
    )

    assert "data_stall" in said


def _printed(code: str) -> str:
    done = subprocess.run(_python(code), capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run(_python(code), check=True)
    return time.perf_counter() - start


def _python(code: str) -> Sequence[str]:
    return [sys.executable, "-c", code]
