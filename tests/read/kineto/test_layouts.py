"""One trace written in many ways gives the same tables; a damaged one never other numbers."""

from __future__ import annotations

import gzip
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.errors import PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.read.kineto.rows import read_rows
from perfnb.tables import SCHEMAS
from tests.read.kineto.traces import event, training

Document = dict[str, Any]


def _turned(value: object) -> object:
    """Value with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(value)}
    return [_turned(each) for each in value] if isinstance(value, list) else value


def _shuffled(read: Document) -> Document:
    """Events that differ in (start, duration) in another order; those that do not keep theirs, as the row order says."""
    places: dict[tuple[object, object], list[object]] = {}
    for each in read["traceEvents"]:
        places.setdefault((each.get("ts"), each.get("dur")), []).append(each)
    groups = list(places.values())
    random.Random(0).shuffle(groups)
    return {**read, "traceEvents": [each for group in groups for each in group]}


LAYOUTS: dict[str, Callable[[Document], bytes]] = {
    "compact": lambda read: json.dumps(read, separators=(",", ":")).encode(),
    "indented": lambda read: json.dumps(read, indent=3).encode(),
    "keys turned": lambda read: json.dumps(_turned(read)).encode(),
    "events shuffled": lambda read: json.dumps(_shuffled(read)).encode(),
    "byte-order mark": lambda read: b"\xef\xbb\xbf" + json.dumps(read).encode(),
    "gzip": lambda read: gzip.compress(json.dumps(read).encode()),
    "many gzip members": lambda read: b"".join(gzip.compress(part) for part in _parts(json.dumps(read).encode())),
}


def _parts(text: bytes) -> list[bytes]:
    return [text[at : at + 100_003] for at in range(0, len(text), 100_003)]


@pytest.mark.corpus
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_real_trace_in_any_layout_gives_the_same_tables(corpus: Path, tmp_path: Path, layout: str) -> None:
    path = next((corpus / "traces/param/dlrm_8rank").glob("worker3*"))
    (tmp_path / "t.json").write_bytes(LAYOUTS[layout](json.loads(path.read_bytes())))

    found, expected = read_kineto(tmp_path / "t.json"), read_kineto(path)

    for name in SCHEMAS:
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))
    assert (found.world_size, found.notes) == (expected.world_size, tuple(n.replace(path.name, "t.json") for n in expected.notes))


@pytest.mark.corpus
@pytest.mark.parametrize("size", [997, 65_537])
def test_a_border_between_pieces_anywhere_changes_nothing(corpus: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    path = corpus / "traces/hta/sampled_2_of_128/sampled_rank-0.json.gz"
    expected = read_kineto(path)
    monkeypatch.setattr("perfnb.read.kineto.source.PIECE_BYTES", size)

    found = read_kineto(path)

    for name in SCHEMAS:
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))


_EVENTS = [*training(8), event("k", "kernel", 1_000_050, 3, device=0, stream=7), {"ph": "M", "name": "process_name", "pid": 1}]
_TEXT = json.dumps({"baseTimeNanoseconds": 5, "traceEvents": _EVENTS, "traceName": "x"}).encode()
_GZIP = gzip.compress(_TEXT, mtime=0)


def _stamps(content: bytes, folder: Path) -> tuple[list[int], list[int]] | None:
    """Starts and durations of the rows that are read; None where the file is refused."""
    (folder / "t.json").write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_kineto(folder / "t.json")
            raw = read_rows(folder / "t.json")
    except PerfnbError:
        return None
    assert len(raw.complete) + len(raw.memory) + sum(raw.counts.values()) == raw.entries
    return raw.start_ns.tolist(), raw.duration_ns.tolist()


@pytest.mark.no_cover
@given(st.integers(0, len(_GZIP) - 1), st.integers(0, 7))
def test_a_bit_flipped_in_a_gzip_file_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    damaged = bytes([*_GZIP[:at], _GZIP[at] ^ (1 << bit), *_GZIP[at + 1 :]])

    found = _stamps(damaged, folder)

    assert found in (None, _stamps(_GZIP, folder))


@given(st.integers(1, len(_TEXT) - 1), st.integers(0, 40), st.binary(max_size=6))
def test_bytes_cut_out_of_a_plain_file_give_what_json_gives_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, length: int, other: bytes
) -> None:
    damaged = _TEXT[:at] + other + _TEXT[at + length :]
    try:
        read = json.loads(damaged)
    except ValueError:
        read = None

    found = _stamps(damaged, tmp_path_factory.mktemp("cut"))

    if found is not None and isinstance(read, dict) and all(isinstance(e, dict) for e in read.get("traceEvents", [])):
        assert len(found[0]) == sum(
            (e.get("ph") == "X" and e.get("cat") != "trace") or (e.get("ph") != "X" and e.get("name") == "[memory]")
            for e in read["traceEvents"]
        )
