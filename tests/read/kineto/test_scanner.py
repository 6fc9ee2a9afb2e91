"""The compiled scanner fills the same columns as the parser by msgspec, and leaves to others what is not plain."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perfnb.errors import PerfnbError
from perfnb.read.kineto import scanner
from perfnb.read.kineto.arguments import COLUMNS_OF
from perfnb.read.kineto.columns import COMPLETE, HEAD, INTEGERS, MEMORY, TEXTS, Parser, Stop, settled
from perfnb.read.kineto.events import TraceFile
from perfnb.read.kineto.scanner import ScannerError, ScanParser
from perfnb.read.kineto.stamps import MISSING
from perfnb.read.kineto.structs import StructParser

needs_numba = pytest.mark.skipif(not scanner.available(), reason="numba is not installed: pip install 'perfnb[fast]'")

HOST = b'{"ph":"X","cat":"cpu_op","name":"aten::mm","pid":1,"tid":"2","ts":10.5,"dur":3,"args":%s}'
DEVICE = b'{"ph":"X","cat":"Kernel","name":"gemm","pid":0,"tid":7,"ts":1712195495520883.001,"dur":25,"args":%s}'
ALL_ARGUMENTS = json.dumps(
    {key: number for number, key in enumerate(key for keys in (*INTEGERS.values(), *TEXTS.values()) for key in keys)}
).encode()

STREAMS = (
    *(b"-1 -0 0 7.0 1e3 1e999 true null [7] 4294967295 18446744073709551615 9223372036854775808 -9223372036854775807".split()),
    *(b"123456789012345678 -123456789012345678 1234567890123456789 11111111111111111111111111111111111111111111111111".split()),
    *(rb'"0x0" "0" "" "stream_7" "\u0037" "7"'.split()),
    *('"é"'.encode(), b'"\xff"', b'" 7 "', b'"stream 7"', b'{"a":7}'),
)
STAMPS = (
    *(b"0 0.001 1.5 25 -0.5 -7 1712195495520883.001 8999999999999999.999 9000000000000000 999999999999999 123.4567".split()),
    *(b"0.0005 0.0015 1.5e3 1E-3 null [1] true 1111111111111111111111111 -9999999999999999 -899999999999999.999".split()),
    *(b'0.0000000000000000001 9999999999999999 "12.5" "x"'.split()),
)


def finished(parser: Parser) -> dict[str, Any]:
    """What a parser found, without the numbers of texts: these may differ."""
    batch, tokens = parser.columns.joined(), parser.columns.tokens.tokens()
    found: dict[str, Any] = {"counts": +parser.columns.counts}
    for kind in (COMPLETE, MEMORY):
        here = batch.kind == kind
        found |= {f"{kind} start": batch.start[here].tolist(), f"{kind} duration": batch.duration[here].tolist()}
        found |= {f"{kind} {name}": each[here].tolist() for name, each in zip(INTEGERS, batch.integers, strict=True)}
        for name, codes in zip((*HEAD, *TEXTS), batch.texts, strict=True):
            column, replaced = settled(codes[here], tokens, lower=name == "category", whole=name in HEAD)
            distinct = np.array([*column.distinct, None], dtype=object)  # code -1 takes the last
            found[f"{kind} {name}"] = distinct[column.codes].tolist(), replaced
    return found


def read(parser: Parser, text: bytes, path: Path) -> dict[str, Any]:
    """What a parser and the search for odd entries find in a list of entries, with what became of the file."""
    path.write_bytes(b'{"traceEvents":[' + text)
    file = TraceFile(path, partial=True)
    try:
        file.read(parser)
    except PerfnbError as error:
        return {"error": str(error)}
    return finished(parser) | {"file": (file.entries, file.dropped, +file.repairs, file.cut, file.keys)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scanner") / "trace.json"


PLAIN = {
    "all arguments, host": HOST % ALL_ARGUMENTS,
    "all arguments, device": DEVICE % ALL_ARGUMENTS,
    "all arguments, memory": b'{"ph":"i","name":"[memory]","ts":1,"args":' + ALL_ARGUMENTS + b"}",
    "all arguments but a collective's name": HOST % ALL_ARGUMENTS.replace(b"Collective name", b"Collective title"),
    "a collective's name as value only": HOST % b'{"a":"Collective name","dtype":"Int"}',
    "a collective's name in a nested object only": DEVICE % b'{"a":{"Collective name":"wait"},"dtype":"Int"}',
    "a collective's name that is null": DEVICE % b'{"Collective name":null,"dtype":"Int","Seq":3}',
    "white space": b' \t{ "ph" :\r\n"X" , "ts" : 1 , "args" : { "stream" : 7 , "Input Dims" : [ [ 1 ] , [ ] ] } } ',
    "no category": b'{"ph":"X","name":"a","ts":1,"dur":1}',
    "category that is null": b'{"ph":"X","cat":null,"ts":1}',
    "category in capitals": b'{"ph":"X","cat":"KERNEL","ts":1,"args":{"device":1,"stream":2,"grid":[1,2,3]}}',
    "category with an escape": rb'{"ph":"X","cat":"kern\u0065l","ts":1,"args":{"device":1}}',
    "skipped": b'{"ph":"X","cat":"Trace"},{"ph":"X","cat":"cuda_counters","ts":1},{"ph":"X","cat":"python_function","ts":1}',
    "two ways to write one skipped category": b'{"ph":"X","cat":"Trace","ts":1},{"ph":"X","cat":"trace","ts":1}',
    "phases": b'{"ph":"f","id":1},{"ph":"s"},{"ph":"M","name":"process_name","args":{"name":"a"}},{"ph":"f"},{"ph":"i"}',
    "memory with a phase of its own": b'{"ph":"M","name":"[memory]","ts":2,"args":{"Bytes":-512,"Addr":9223372036854775807}}',
    "a complete event that is named [memory]": b'{"ph":"X","name":"[memory]","ts":2,"args":{"Bytes":1}}',
    "a key twice": b'{"ph":"f","ph":"X","ts":1,"ts":2,"name":"a","name":"b","args":{"stream":1,"stream":2}}',
    "arguments twice": HOST[:-3] % () + b'{"stream":7,"Sequence number":5},"args":{"Sequence number":6}}',
    "arguments and then none": HOST[:-3] + b'{"stream":7},"args":null}',
    "no arguments and then some": HOST[:-3] + b'[1],"args":{"stream":7}}',
    "arguments that are a list": HOST % b'[{"stream":7}]',
    "arguments that are null": HOST % b"null",
    "arguments that are a text": HOST % b'"Collective name"',
    "no argument": HOST % b"{}",
    "an argument whose key is empty": HOST % b'{"":1}',
    "both spellings of shapes": HOST % b'{"Input dims":[1],"Input Dims":[2]}',
    "the second spelling of shapes": HOST % b'{"Input dims":[1]}',
    "the first spelling of shapes is null": HOST % b'{"Input Dims":null,"Input dims":[1]}',
    "streams of all sorts": b",".join(HOST % (b'{"stream":' + each + b"}") for each in STREAMS),
    "an argument that no parser can read, beside spellings of shapes": HOST
    % b'{"stream":1e999,"Input Dims":null,"Input dims":[1],"Collective name":null,"dtype":"Int"}',
    "stamps of all sorts": b",".join(b'{"ph":"X","ts":' + each + b',"dur":' + each + b"}" for each in STAMPS),
    "texts with escapes": rb'{"ph":"X","name":"a\"b\\c\/d\b\f\n\r\t\u00e9\u2028","ts":1,"args":{"Input type":["\"]}"]}}',
    "a text in two spellings": rb'{"ph":"X","name":"\u0061","ts":1},{"ph":"X","name":"a","ts":1}',
    "surrogate pairs": rb'{"ph":"X","name":"\ud83d\ude00","ts":1}',
    "UTF-8": '{"ph":"X","name":"größe 😀","ts":1,"args":{"Input type":["é"]}}'.encode(),
    "bytes that are no UTF-8": b'{"ph":"X","name":"a\xff","ts":1},{"ph":"X","name":"b\xc3","cat":"\xfe","ts":1}',
    "names of every length": b",".join(b'{"ph":"X","name":"%s","tid":"%s","ts":1}' % (b"n" * k, b"m" * k) for k in range(70)),
    "names that differ in one byte": b",".join(
        b'{"ph":"X","name":"%s","ts":1}' % (b"n" * k + b"x" + b"n" * (20 - k)) for k in range(21)
    ),
    "names that are no texts": b'{"ph":"X","name":12,"pid":[1, 2],"tid":{"a":1},"ts":1},{"ph":"X","name":null,"ts":1}',
    "a key with an escape": rb'{"p\u0068":"X","ts":1},{"ph":"X","ts":1,"args":{"str\u0065am":7}}',
    "keys nearly those of a column": HOST % b'{"strean":1,"Stream":2,"strea":3,"streams":4,"correlatiom":5,"x":6}',
    "phases that are odd": b'{"ph":"XX"},{"ph":"","ts":1},{"ph":1},{"ph":123},{"ph":null},{},{"ph":[1]},{"name":"[memory]"},'
    + '{"ph":"é"}'.encode(),
    "deep": HOST % (b'{"a":' + b"[" * 59 + b"]" * 59 + b',"stream":7}'),
    "too deep": HOST % (b'{"a":' + b"[" * 300 + b"]" * 300 + b',"stream":7}'),
    "mixed nesting": HOST % b'{"a":[{"b":[{}, [], {"c":{"d":[null,true,false,-1.5e-7]}}]}],"stream":7}',
    "entries that are no objects": b'{"ph":"X","ts":1},7,{"ph":"X","ts":2},"a",[1],null,{"ph":"X","ts":3}',
}


@needs_numba
@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN.keys())
def test_a_list_gives_the_same_columns_by_either_parser(text: bytes, python: bool, path: Path) -> None:  # noqa: FBT001
    by_msgspec = read(StructParser(python=python), text + b"]}", path)

    by_numba = read(ScanParser(python=python), text + b"]}", path)

    assert by_numba == by_msgspec


TAKEN_IN_ONE = [
    name for name in PLAIN if not {"odd", "objects", "deep,", "too", "sorts", "escape", "pairs", "can"} & set(name.split())
]


@needs_numba
@pytest.mark.parametrize("name", TAKEN_IN_ONE)
def test_plain_entries_are_taken_in_one_stretch(name: str) -> None:
    reference = StructParser(python=False)
    number = reference.entries(PLAIN[name])
    parser = ScanParser(python=False)

    taken = parser.stretch(PLAIN[name] + b" ] ,", 0)

    assert taken == (number, len(PLAIN[name]) + 2, Stop.END)
    assert finished(parser) == finished(reference)


@needs_numba
def test_every_column_is_read_from_a_device_row_and_a_memory_row() -> None:
    text = b",".join([PLAIN["all arguments, device"], PLAIN["all arguments, memory"]])
    parser = ScanParser(python=False)

    parser.stretch(text + b"]", 0)

    batch = parser.columns.joined()
    integers, texts = COLUMNS_OF["device with a collective"]
    assert batch.start.tolist() == [1712195495520883001, 1000]
    assert batch.duration.tolist() == [25_000, MISSING]
    assert {name: value for name, value in zip(INTEGERS, batch.integers[:, 0].tolist(), strict=True) if value != MISSING} == {
        name: list(INTEGERS).index(name) for name in integers
    }
    tokens = parser.columns.tokens.tokens()
    assert all(batch.texts[len(HEAD) + list(TEXTS).index(name), 0] >= 0 for name in texts)
    assert [tokens[code] for code in batch.texts[: len(HEAD), 0]] == [b'"Kernel"', b'"gemm"', b"0", b"7"]
    assert batch.integers[list(INTEGERS).index("reserved"), 1] == list(INTEGERS).index("reserved")


ODD = {
    "a number that begins with 0": b'{"ph":"X","ts":01}',
    "a number that ends in its point": b'{"ph":"X","ts":1.}',
    "a number without digits": b'{"ph":"X","ts":-}',
    "a number with an empty exponent": b'{"ph":"X","ts":1e}',
    "a number with a plus": b'{"ph":"X","ts":+1}',
    "a wrong literal": b'{"ph":"X","ts":nul}',
    "another wrong literal": b'{"ph":"X","ts":trve}',
    "a third wrong literal": b'{"ph":"X","ts":fals3}',
    "NaN": b'{"ph":"X","ts":NaN}',
    "N/A": b'{"ph":"X","ts":1,"args":{"stream":N/A}}',
    "a line break in a text": b'{"ph":"X","name":"a\nb"}',
    "a zero byte in a text": b'{"ph":"X","name":"a\0b"}',
    "a zero byte between values": b'{"ph":"X",\0"name":"a"}',
    "a wrong escape": rb'{"ph":"X","name":"C:\Users"}',
    "an escape with too few digits": rb'{"ph":"X","name":"\u12g4"}',
    "half of a surrogate pair": rb'{"ph":"X","name":"\ud83d"}',
    "a low surrogate in capitals": rb'{"ph":"X","name":"\uDE00"}',
    "a comma at the end of an object": b'{"ph":"X",}',
    "a comma at the end of the arguments": b'{"ph":"X","args":{"stream":7,}}',
    "a comma at the end of a list": b'{"ph":"X","args":{"a":[1,]}}',
    "two commas": b'{"ph":"X",,"ts":1}',
    "a missing comma": b'{"ph":"X" "ts":1}',
    "a missing colon": b'{"ph" "X"}',
    "a key that is no text": b'{ph:"X"}',
    "a nested key that is no text": b'{"a":{b:1}}',
    "a bracket that does not match": b'{"ph":"X","a":[1}}',
    "a brace that does not match": b'{"ph":"X","a":{"b":1]}',
    "no comma before the next entry": b'{"ph":"X","ts":1} {"ph":"X"}',
    "a quote in a name": b'{"ph":"X","name":"say "hi""}',
    "no entry at all": b"7",
}


@needs_numba
@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_what_is_not_strict_is_left_where_it_begins(text: bytes) -> None:
    before = b' {"ph":"X","ts":1,"dur":2}'
    parser = ScanParser(python=False)

    found = parser.stretch(before + b" , " + text + b',{"ph":"X","ts":3}]', 0)

    assert found == (1, len(before), Stop.ODD)
    assert parser.columns.joined().start.tolist() == [1000]


@needs_numba
def test_a_comma_after_the_last_entry_is_left_to_others() -> None:
    assert ScanParser(python=False).stretch(b'{"ph":"f"},]', 0) == (1, 10, Stop.ODD)


@needs_numba
def test_an_empty_text_has_more_to_come() -> None:
    assert ScanParser(python=False).stretch(b"", 0) == (0, 0, Stop.MORE)
    assert ScanParser(python=False).stretch(b" , ", 0) == (0, 0, Stop.MORE)
    assert ScanParser(python=False).stretch(b'{"ph":"f"}', 10) == (0, 10, Stop.MORE)


CHOPPED = (
    b",\n ".join(
        text
        for name, text in PLAIN.items()
        if name in {"all arguments, host", "white space", "texts with escapes", "skipped", "mixed nesting", "UTF-8"}
    )
    + b',{"ph":"X","ts":1.5e1,"tid":true,"args":{"a":false,"b":null}} '
)


@needs_numba
@pytest.mark.no_cover
def test_a_text_that_is_cut_at_any_byte_is_read_on_from_there() -> None:
    whole = CHOPPED + b"]"
    reference = StructParser(python=True)
    number = reference.entries(CHOPPED)
    expected = finished(reference)

    for cut in range(len(whole)):
        parser = ScanParser(python=True)
        first, position, stop = parser.stretch(whole[:cut], 0)
        assert stop is Stop.MORE
        second, end, stop = parser.stretch(whole, position)
        assert (first + second, end, stop) == (number, len(whole), Stop.END)
        assert finished(parser) == expected


@needs_numba
def test_rows_stay_in_the_order_of_the_file_where_entries_are_taken_alone() -> None:
    parser = ScanParser(python=False)

    parser.stretch(b'{"ph":"X","ts":1},', 0)
    assert parser.entry(b'{"ph":"X","ts":2,"name":"odd"}')
    parser.stretch(b'{"ph":"X","ts":3,"name":"odd"},{"ph":"X","ts":4}]', 0)

    batch = parser.columns.joined()
    assert batch.start.tolist() == [1000, 2000, 3000, 4000]
    assert batch.texts[HEAD.index("name")].tolist()[1] == batch.texts[HEAD.index("name")].tolist()[2]


@needs_numba
def test_a_value_that_is_no_object_is_not_taken() -> None:
    assert not ScanParser(python=False).entry(b"[1]")


@needs_numba
def test_columns_longer_than_a_batch_and_texts_more_than_the_table_first_holds() -> None:
    number = 40_000
    text = b",".join(
        b'{"ph":"X","name":"%s %d","ts":%d,"dur":"%d","args":{"stream":"0x%x"}}' % (b"name" * (k % 40), k, k, k, k % 50)
        for k in range(number)
    )
    parser = ScanParser(python=False)

    assert parser.stretch(text + b"]", 0) == (number, len(text) + 1, Stop.END)

    batch, tokens = parser.columns.joined(), parser.columns.tokens.tokens()
    assert np.array_equal(batch.start, 1000 * np.arange(number))
    assert np.array_equal(batch.duration, 1000 * np.arange(number))
    assert np.array_equal(batch.integers[list(INTEGERS).index("stream")], np.arange(number) % 50)
    names = [tokens[code] for code in batch.texts[HEAD.index("name")].tolist()]
    assert names == [b'"%s %d"' % (b"name" * (k % 40), k) for k in range(number)]
    assert len(set(tokens)) == len(tokens)


@needs_numba
def test_an_entry_longer_than_the_table_of_texts_first_holds_is_taken() -> None:
    name = b"n" * 300_000
    parser = ScanParser(python=False)

    parser.stretch(b'{"ph":"X","ts":1,"name":"' + name + b'"}]', 0)

    assert b'"' + name + b'"' in parser.columns.tokens.tokens()


# --- anything that a writer of JSON may write ---------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ARGUMENT_KEYS = st.sampled_from([key for keys in (*INTEGERS.values(), *TEXTS.values()) for key in keys] + ["External id", "a"])
ARGUMENTS = st.dictionaries(ARGUMENT_KEYS, VALUES, max_size=8) | VALUES
EVENTS = st.fixed_dictionaries(
    {"ph": st.sampled_from(["X", "X", "X", "i", "M", "f"])},
    optional={
        "cat": st.sampled_from(["cpu_op", "kernel", "python_function", "Trace", "gpu_memcpy"]) | VALUES,
        "name": st.sampled_from(["[memory]", "aten::mm"]) | VALUES,
        "pid": VALUES,
        "tid": VALUES,
        "ts": st.floats(0, 1e12).map(lambda x: round(x, 3)) | VALUES,
        "dur": st.integers(0, 10**6) | VALUES,
        "args": ARGUMENTS,
    },
)


@st.composite
def lists(draw: st.DrawFn) -> bytes:
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " :\r")]))
    ascii_only = draw(st.booleans())
    events = [
        json.dumps(each, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        for each in draw(st.lists(EVENTS, min_size=1, max_size=6))
    ]
    return separators[0].encode().join(events)


@needs_numba
@pytest.mark.no_cover
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(text=lists())
def test_whatever_is_written_gives_the_same_columns_by_either_parser(text: bytes, path: Path) -> None:
    by_msgspec = read(StructParser(python=False), text + b"]}", path)

    by_numba = read(ScanParser(python=False), text + b"]}", path)

    assert by_numba == by_msgspec


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    text = bytearray(draw(lists()) + b'],"baseTimeNanoseconds":5}')
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text) - 1))
        how = draw(st.sampled_from(["replace", "insert", "delete", "cut"]))
        new = draw(st.sampled_from(list(b'",:{}[]\\0-.eE1 \n\0nt\xff')))
        if how == "replace":
            text[place] = new
        elif how == "insert":
            text.insert(place, new)
        elif how == "delete":
            del text[place]
        else:
            del text[place:]
        if not text:
            break
    return bytes(text)


@needs_numba
@pytest.mark.no_cover
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(text=damaged())
@example(text=b'{"ph":"X","ts":1,"name":"a"b"},{"ph":"X","ts":2}]}')
def test_damage_is_met_in_the_same_way_by_either_parser(text: bytes, path: Path) -> None:
    by_msgspec = read(StructParser(python=False), text, path)

    by_numba = read(ScanParser(python=False), text, path)

    assert by_numba == by_msgspec


# --- recorded traces ----------------------------------------------------------------------------------------------------


def recorded(corpus: Path) -> Iterator[Path]:
    return (file for file in sorted((corpus / "traces").rglob("*")) if file.name.endswith((".json", ".json.gz")))


@needs_numba
@pytest.mark.corpus
@pytest.mark.no_cover
@pytest.mark.slow
@pytest.mark.parametrize("python", [False, True])
def test_recorded_traces_give_the_same_columns_by_either_parser(corpus: Path, python: bool) -> None:  # noqa: FBT001
    differ = []
    for file in recorded(corpus):
        found = []
        for parser in (StructParser(python=python), ScanParser(python=python)):
            trace = TraceFile(file)
            try:
                trace.read(parser)
            except PerfnbError as error:
                found.append(str(error))
            else:
                found.append(finished(parser) | {"file": (trace.entries, trace.dropped, trace.repairs, trace.cut, trace.keys)})
        if found[0] != found[1]:
            differ.append(file.name)

    assert differ == []


# --- the compiled functions as plain Python -----------------------------------------------------------------------------


@pytest.fixture
def plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the modules that are compiled run as they are written, on arrays in place of addresses."""
    names = [f"perfnb.read.kineto.{name}" for name in scanner._SOURCES]
    numba, extending = ModuleType("numba"), ModuleType("numba.extending")
    numba.njit = lambda *given, **_: _uncompiled(given[0]) if given else _uncompiled  # type: ignore[attr-defined]
    numba.types = MagicMock()  # type: ignore[attr-defined]
    extending.intrinsic = extending.overload = MagicMock()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "numba", numba)
    monkeypatch.setitem(sys.modules, "numba.extending", extending)
    package = importlib.import_module("perfnb.read.kineto")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(package, name.rpartition(".")[2], raising=False)
    for name in names:
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    tokens, kernels = (sys.modules[f"perfnb.read.kineto.{name}"] for name in ("scanner_tokens", "scanner_kernels"))
    for module in (tokens, kernels):
        monkeypatch.setattr(module, "address_of", lambda text: np.frombuffer(text + b"\0", dtype=np.uint8))
        monkeypatch.setattr(module, "addresses", _arrays)
    monkeypatch.setattr(scanner, "_compiled", lambda: kernels)


def _uncompiled(function: Any) -> Any:
    function.py_func = function
    return function


def _arrays(of: Any) -> Any:
    return type(of)(*(each.reshape(-1) if isinstance(each, np.ndarray) else each for each in of))


@needs_numba
@pytest.mark.parametrize("text", [*PLAIN.values(), *ODD.values()], ids=[*PLAIN, *ODD])
def test_as_plain_python_a_list_gives_the_same_columns_too(text: bytes, path: Path, plain_python: None) -> None:
    by_msgspec = read(StructParser(python=False), text + b"]}", path)

    with np.errstate(over="ignore"):  # a hash wraps
        by_scanner = read(ScanParser(python=False), text + b"]}", path)

    assert by_scanner == by_msgspec


# --- where it runs ------------------------------------------------------------------------------------------------------


def in_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_importing_the_reader_imports_no_numba() -> None:
    done = in_new_process("import sys, perfnb, perfnb.read.kineto.rows; print('numba' in sys.modules)")

    assert done.stdout == "False\n"


def test_without_numba_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "find_spec", lambda _: None)
    scanner._compiled.cache_clear()

    with pytest.raises(ScannerError, match=r"pip install 'perfnb\[fast\]'"):
        ScanParser(python=False)

    scanner._compiled.cache_clear()


def test_where_numba_does_not_compile_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: object) -> None:
        message = "no locator available"
        raise RuntimeError(message)

    monkeypatch.setattr(scanner, "find_spec", lambda _: True)
    monkeypatch.setattr(scanner, "_check", failing)
    scanner._compiled.cache_clear()

    with pytest.raises(ScannerError, match=r"numba cannot compile the scanner here.*(no locator available|No module named)"):
        ScanParser(python=False)

    scanner._compiled.cache_clear()


def test_the_first_text_has_to_be_large_for_the_scanner_to_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "find_spec", lambda _: True)
    scanner._compiled.cache_clear()

    assert scanner.pays(scanner.SCAN_FROM_BYTES)
    assert not scanner.pays(scanner.SCAN_FROM_BYTES - 1)


@needs_numba
def test_once_started_the_scanner_pays_for_any_text() -> None:
    ScanParser(python=False)

    assert scanner.pays(1)


@needs_numba
def test_where_compiling_is_turned_off_it_says_so() -> None:
    code = "from perfnb.read.kineto.scanner import ScanParser; ScanParser(python=False)"

    done = in_new_process(code, NUMBA_DISABLE_JIT="1")

    assert "ScannerError" in done.stderr
    assert "NUMBA_DISABLE_JIT" in done.stderr


@needs_numba
@pytest.mark.slow
def test_compiling_is_said_once_and_kept_for_later_processes(tmp_path: Path) -> None:
    code = 'from perfnb.read.kineto.scanner import ScanParser; print(ScanParser(python=False).stretch(b\'{"ph":"f"}]\', 0)[:2])'

    first = in_new_process(code, NUMBA_CACHE_DIR=str(tmp_path))
    second = in_new_process(code, NUMBA_CACHE_DIR=str(tmp_path))

    assert first.stderr.startswith("perfnb: compiling the trace scanner once")
    assert first.stderr.count("\n") == 1
    assert second.stderr == ""
    assert first.stdout == second.stdout == "(1, 11)\n"
