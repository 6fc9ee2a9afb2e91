"""The script of a live chart is made once per machine, and damage to what is kept of it is met; altair is imported quickly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import altair as alt
import pytest

from perfnb.charts import offline
from perfnb.charts.offline import bundle
from perfnb.charts.quick_import import _StandIn

SCRIPT = "export default {}; // \u00e9"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Scripts that were made, each in a moment."""
    done: list[str] = []

    def quickly() -> str:
        done.append(SCRIPT)
        return SCRIPT

    monkeypatch.setattr(offline, "_made", quickly)
    return done


def test_the_script_is_made_once_and_kept(made: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "perfnb"

    assert [bundle(folder) for _ in range(3)] == [SCRIPT] * 3
    assert made == [SCRIPT]
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"0" * 64 + b"\nalert(1)", b"{first}\nexport"])
def test_a_script_that_is_not_what_was_kept_is_made_anew(made: list[str], tmp_path: Path, damage: bytes) -> None:
    bundle(tmp_path)
    file = next(tmp_path.iterdir())
    first = file.read_bytes().split(b"\n")[0]
    file.write_bytes(damage.replace(b"{first}", first))

    assert bundle(tmp_path) == SCRIPT
    assert len(made) == 2
    assert bundle(tmp_path) == SCRIPT
    assert len(made) == 2


def test_where_nothing_can_be_kept_it_is_made_each_time(made: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    assert [bundle(file), bundle(file)] == [SCRIPT] * 2
    assert len(made) == 2


def test_links_that_go_in_a_circle_keep_nothing(made: list[str], tmp_path: Path) -> None:
    bundle(tmp_path)
    file = next(tmp_path.iterdir())
    file.unlink()
    file.symlink_to(file)

    assert bundle(tmp_path) == SCRIPT
    assert len(made) == 2


def test_another_version_has_another_script(made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path)
    monkeypatch.setattr(offline, "version", lambda name: f"99 of {name}")
    bundle(tmp_path)

    assert len(made) == len(list(tmp_path.iterdir())) == 2


def test_the_charts_of_others_fetch_their_script_as_before(tmp_path: Path) -> None:
    before = alt.JupyterChart._esm

    script = bundle(tmp_path)

    assert len(script) > 100 * len(str(before))
    assert alt.JupyterChart._esm == before


def test_the_stand_in_gives_what_else_is_asked_of_the_module_from_the_module_itself() -> None:
    real = pytest.importorskip("rfc3987_syntax")

    stand_in = _StandIn("rfc3987_syntax")

    assert stand_in.is_valid_syntax_iri is real.is_valid_syntax_iri
    assert stand_in.is_valid_syntax("iri", "http://a.b/")
    assert not hasattr(stand_in, "__path__")


def test_importing_the_charts_builds_no_parsers_of_addresses_and_who_wants_them_gets_them() -> None:
    code = (
        "import sys, perfnb.charts\n"
        "print('lark' in sys.modules, 'rfc3987_syntax' in sys.modules)\n"
        "from jsonschema import FormatChecker\n"
        "try:\n"
        "    import rfc3987_syntax\n"
        "except ImportError:\n"
        "    print('not installed')\n"
        "else:\n"
        "    print([FormatChecker().conforms(each, 'iri') for each in ('http://a.b/\\u00fc', '::no address')])\n"
    )

    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, encoding="utf-8", check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() in (["False False", "[True, False]"], ["False False", "not installed"])
