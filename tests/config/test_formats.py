"""Text of config files: only the value that is meant changes; what cannot be changed alone is refused in words."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.apply import apply, preview, undo
from perfnb.config.as_config import as_config
from perfnb.config.formats.json_text import JsonText
from perfnb.config.formats.text_format import TextFormat
from perfnb.config.formats.toml_text import TomlText
from perfnb.config.formats.yaml_text import YamlText
from perfnb.config.tree import ABSENT, same
from perfnb.errors import ConfigError
from perfnb.prediction import Change

pytest.importorskip("ruamel.yaml")
pytest.importorskip("tomlkit")

JSON, YAML, TOML = JsonText(), YamlText(), TomlText()

EDITS = [
    # JSON
    (JSON, '{"a": 1}', ("a",), 2, '{"a": 2}'),
    (JSON, '{ "a" :1 ,\n"b":{"c":[1, 2]}}', ("b", "c"), [3], '{ "a" :1 ,\n"b":{"c":[3]}}'),
    (JSON, '{"a": "x\\u00e9\\"", "b": 1e5}', ("b",), 0.5, '{"a": "x\\u00e9\\"", "b": 0.5}'),
    (
        JSON,
        '// top\n{\n  "a": 1, // one\n  # two\n  "b": 2, /* last */\n}\n',
        ("b",),
        3,
        '// top\n{\n  "a": 1, // one\n  # two\n  "b": 3, /* last */\n}\n',
    ),
    (JSON, '{\n  "a": 1 // one\n}\n', ("b",), None, '{\n  "a": 1, // one\n  "b": null\n}\n'),
    (JSON, '{\n  "a": 1, // one\n}\n', ("b",), True, '{\n  "a": 1, // one\n  "b": true,\n}\n'),
    (JSON, '{\r\n\t"a": 1\r\n}', ("b", "c"), "x", '{\r\n\t"a": 1,\r\n\t"b": {"c": "x"}\r\n}'),
    (JSON, '{"a": 1}', ("b",), 2, '{"a": 1, "b": 2}'),
    (JSON, "{}", ("b",), 2, '{"b": 2}'),
    (JSON, '{"a": {}}', ("a", "b"), 2, '{"a": {"b": 2}}'),
    # YAML
    (YAML, "a: 1 # one\nb: 2\n", ("a",), 3, "a: 3 # one\nb: 2\n"),
    (YAML, "a:\n    b: 'no'   # kept\n", ("a", "b"), "bf16", "a:\n    b: 'bf16'   # kept\n"),
    (YAML, 'a: "no"\n', ("a",), "x y", 'a: "x y"\n'),
    (YAML, "a: bf16\n", ("a",), "no", 'a: "no"\n'),
    (YAML, "a: 1e-4\n", ("a",), 2e-5, "a: 2.0e-05\n"),
    (YAML, "a:\nb: 2\n", ("a",), 4, "a: 4\nb: 2\n"),
    (YAML, "a: # none\nb: 2\n", ("a",), 4, "a: 4 # none\nb: 2\n"),
    (YAML, "a: null\n", ("a",), 4, "a: 4\n"),
    (YAML, "a: [1, 2] # pair\n", ("a",), [3], "a: [3] # pair\n"),
    (YAML, "a:\n- 1 # one\n- 2\n# end\nb: 1\n", ("a",), [3, 4], "a:\n- 3 # one\n- 4\n# end\nb: 1\n"),
    (YAML, "a: {b: 1, c: 2}\n", ("a", "c"), 3, "a: {b: 1, c: 3}\n"),
    (YAML, "a: {b: 1}\n", ("a", "c"), 3, "a: {c: 3, b: 1}\n"),
    (YAML, "a: {}\n", ("a", "c"), 3, "a: {c: 3}\n"),
    (YAML, "a: 1 # one", ("b",), False, "a: 1 # one\nb: false"),
    (YAML, "a:\r\n  b: 1\r\n# end\r\n", ("a", "c"), 2, "a:\r\n  b: 1\r\n  c: 2\r\n# end\r\n"),
    (YAML, "# top\na:\n  - 1\n", ("b",), 2, "# top\na:\n  - 1\nb: 2\n"),
    (YAML, "a:\n  b: [1,\n   2] # c\n\n# end\n", ("d",), 2, "a:\n  b: [1,\n   2] # c\nd: 2\n\n# end\n"),
    (YAML, "a: |\n  text\n", ("b",), 2, "b: 2\na: |\n  text\n"),
    (YAML, "a: &x 1\nb:\n  - *x\n", ("c",), 2, "c: 2\na: &x 1\nb:\n  - *x\n"),
    (YAML, "---\na: 1\n...\n", ("a",), 2, "---\na: 2\n...\n"),
    (YAML, "base: &b {w: 1}\nrun:\n  <<: *b\n  x: 1\n", ("run", "w"), 2, "base: &b {w: 1}\nrun:\n  <<: *b\n  x: 1\n  w: 2\n"),
    (YAML, "a: 0x10\n", ("a",), 17, "a: 17\n"),
    (YAML, "? a\n: 1\n", ("a",), 2, "? a\n: 2\n"),
    # TOML
    (TOML, "# top\na = 1 # one\n\n[b]\nc   = 'x'\n", ("a",), 2, "# top\na = 2 # one\n\n[b]\nc   = 'x'\n"),
    (TOML, "[b]\nc = 1_000\nd.e = 1\n", ("b", "d", "e"), 2, "[b]\nc = 1_000\nd.e = 2\n"),
    (TOML, "[b]\r\nc = 1\r\n", ("b", "d"), 2, "[b]\r\nc = 1\r\nd = 2\r\n"),
    (TOML, "a = {b = 1, c = 2}\n", ("a", "c"), True, "a = {b = 1, c = true}\n"),
    (TOML, "a = [\n  1,\n]\n", ("a",), [2], "a = [2]\n"),
]


@pytest.mark.parametrize(("form", "text", "path", "value", "after"), EDITS)
def test_the_value_changes_where_it_stands(form: TextFormat, text: str, path: tuple[str, ...], value: Any, after: str) -> None:
    assert form.edited(text, {path: value}) == after


def test_blocks_that_are_merged_count_and_the_own_name_wins() -> None:
    text = "a: &a {w: 1, x: 1}\nb: &b {x: 2}\nrun:\n  <<: [*b, *a]\n  y: 3\none: {<<: *a, w: 5}\n"

    held = YAML.parsed(text)

    assert held["run"] == {"w": 1, "x": 2, "y": 3}
    assert held["one"] == {"w": 5, "x": 1}


def test_several_names_that_are_not_there_yet_go_into_one_new_part() -> None:
    edits = {("new", "a"): 1, ("new", "b", "c"): 2, ("new", "b", "d"): 3}

    assert JSON.edited('{"x": 1}', edits) == '{"x": 1, "new": {"a": 1, "b": {"c": 2, "d": 3}}}'
    assert YAML.edited("x: 1\n", edits) == "x: 1\nnew: {a: 1, b: {c: 2, d: 3}}\n"


@pytest.mark.parametrize(
    ("form", "text", "path", "value", "words"),
    [
        (JSON, '{"a": 1}', ("a",), ABSENT, "would have to go: remove the line by hand"),
        (JSON, '{"a": 1}', ("a", "b"), 2, "it is no object"),
        (JSON, '{"a": 1}', ("a",), object(), "JSON has no text for object"),
        (JSON, '{"a": 1}', ("a",), math.nan, "JSON has no text for float"),
        (YAML, "a: 1\n", ("a", "b"), 2, "it is no mapping of its own"),
        (YAML, "x: &x {b: 1}\na: *x\n", ("a", "b"), 2, "used at several places"),
        (YAML, "x: &x {b: {c: 1}}\na: *x\n", ("a", "b", "c"), 2, "used at several places"),
        (YAML, "a:\n  - 1\n", ("a",), [1, 2], "it stands on several lines"),
        (YAML, "a: |\n  x\n", ("a",), 2, "it is a block of text"),
        (YAML, "a: 1\n", ("a",), object(), "YAML has no text for a object"),
        (TOML, "a = 1\n", ("a",), None, "TOML has no null"),
        (TOML, "a = 1\n", ("a", "b"), 2, "cannot be changed here"),
        (TOML, "a = 1\n", ("a",), object(), "cannot be changed here"),
    ],
)
def test_an_edit_that_a_text_does_not_take_is_refused(
    form: TextFormat, text: str, path: tuple[str, ...], value: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        form.edited(text, {path: value})


REFUSED = [
    ("a.yaml", "a: &x 1\nb: *x\nnum_workers: *x\n", "is an alias"),
    ("a.yaml", "num_workers: &x 1\nb: *x\n", "has an anchor"),
    ("a.yaml", "num_workers: !!int 1\n", "has a tag"),
    ("a.yaml", "x: {num_workers: 1}\ny: 1\nx: {num_workers: 1}\n", "stands there more than once"),
    ("a.json", '{"num_workers": 1, "num_workers": 1}', "stands there more than once"),
]


@pytest.mark.parametrize(("name", "text", "words"), REFUSED)
def test_what_is_used_at_several_places_is_not_changed(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=words):
        preview(Change("num_workers", 1, 2), tmp_path / name)

    assert (tmp_path / name).read_text(encoding="utf-8") == text


WRONG = [
    ("a.json", "", "is not JSON: line 1, column 1 has the end of the file where a value should be"),
    ("a.json", "[1]", "holds a list: a config is a JSON object"),
    ("a.json", '{"a": 1 "b": 2}', "line 1, column 9 has '\"' where , or } should be"),
    ("a.json", '{"a": 1}}', "column 9 has '}' where the end should be"),
    ("a.json", "{'a': 1}", 'a name in "quotes" or }'),
    ("a.json", '{"a": 01}', "is not JSON"),
    ("a.json", '{"a": ' + "[" * 2000, "nested more than 60 levels"),
    ("a.json", '{"a": ' + "9" * 10_000 + "}", "is not JSON"),
    ("a.yaml", "", "holds nothing: a config is a mapping"),
    ("a.yaml", "- 1\n", "holds a sequence"),
    ("a.yaml", "a: [1\n", "is not YAML"),
    ("a.yaml", "a: 1\n---\nb: 2\n", "is not YAML"),
    ("a.yaml", "a: &a [*a]\n", "refers to itself"),
    ("a.yaml", "a: " + "[" * 200 + "]" * 200, "nested more than 60 levels"),
    ("a.toml", "a = \n", "is not TOML"),
    ("a.toml", "a = 1\na = 2\n", "is not TOML"),
    ("a.ini", "a = 1\n", "is no config file that perfnb changes: there are .json"),
]


@pytest.mark.parametrize(("name", "text", "words"), WRONG)
def test_a_file_that_is_no_config_is_refused_in_words(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        len(as_config(tmp_path / name))

    assert words in str(caught.value)
    assert name in str(caught.value)


def test_tags_of_yaml_make_no_object(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: !!python/object/apply:os.system ['touch pwned']\nnum_workers: 0\n", encoding="utf-8")

    home = apply(Change("num_workers", 0, 2), path)

    assert home["num_workers"] == 2
    assert [each.suffix for each in tmp_path.iterdir() if each.name != "a.yaml"] == [".bak"]


def test_a_file_of_yaml_that_refers_to_a_large_part_again_and_again_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, "num_workers: 0"]), encoding="utf-8")

    with pytest.raises(ConfigError, match="holds more than"):
        len(as_config(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("encoding", "mark"), [("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff"), ("utf-32-le", b"\xff\xfe\0\0")]
)
def test_the_encoding_of_the_file_stays(tmp_path: Path, encoding: str, mark: bytes) -> None:
    path = tmp_path / "a.json"
    before = mark + '{"name": "Größe\U0001f600", "num_workers": 0}\r\n'.encode(encoding)
    path.write_bytes(before)

    apply(Change("num_workers", 0, 2), path)

    assert path.read_bytes() == mark + '{"name": "Größe\U0001f600", "num_workers": 2}\r\n'.encode(encoding)
    undo(Change("num_workers", 0, 2), path)
    assert path.read_bytes() == before


def test_a_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"name": "Größe"}'.encode("latin-1"))

    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 12 does not fit; save it as UTF-8"):
        len(as_config(tmp_path / "a.json"))


NAMES = st.text(max_size=8)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12))
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3))
CONFIGS = st.dictionaries(NAMES, st.one_of(VALUES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=4)


def _held(form: TextFormat, text: str, before: Mapping[Any, Any], value: Any, *, absent: bool) -> None:
    """Put a value at one place of a text and look that it is there, alone; or that the format says it has no text for it."""
    path = ("the knob",) if absent else (next(iter(before)),)
    try:
        after = form.parsed(form.edited(text, {path: value}))
    except ConfigError:
        return
    assert same(after, {**before, path[0]: value})


@given(CONFIGS, VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_any_json_takes_any_value(config: dict[str, Any], value: Any, absent: bool, indent: Any) -> None:  # noqa: FBT001
    text = json.dumps(config, indent=indent)

    assert same(JSON.parsed(text), config)
    _held(JSON, text, config, value, absent=absent)


WRITABLE = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
YAML_VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WRITABLE)


@given(st.dictionaries(WRITABLE, YAML_VALUES, min_size=1, max_size=3), YAML_VALUES | st.lists(YAML_VALUES, max_size=3))
def test_any_yaml_scalar_is_read_as_it_was_written(config: dict[str, Any], value: Any) -> None:
    text = YAML.edited("{}", {(name,): each for name, each in config.items()})

    assert same(YAML.parsed(text), config)
    assert same(YAML.parsed(YAML.edited(text, {(next(iter(config)),): value})), {**config, next(iter(config)): value})


@given(YAML_VALUES)
def test_pyyaml_reads_what_is_written_as_the_same_value(value: Any) -> None:
    yaml = pytest.importorskip("yaml")

    assert same(yaml.safe_load(YAML.edited("a: 1\n", {("a",): value})), {"a": value})


TOML_VALUES = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), WRITABLE)


@given(TOML_VALUES, TOML_VALUES | st.lists(st.integers(0, 9), max_size=3))
def test_any_toml_value_is_read_as_it_was_written(before: Any, value: Any) -> None:
    text = TOML.edited("# top\nb = 1 # one\n", {("a",): before})
    after = TOML.edited(text, {("a",): value})

    assert text.startswith("# top\nb = 1 # one\n")
    assert same(tomllib.loads(after), {"b": 1, "a": value})


def test_without_the_library_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ruamel.yaml", None)
    monkeypatch.setitem(__import__("sys").modules, "tomlkit", None)
    (tmp_path / "a.yaml").write_text("num_workers: 0\n", encoding="utf-8")
    (tmp_path / "a.toml").write_text("num_workers = 0\n", encoding="utf-8")
    change = Change("num_workers", 0, 2)

    with pytest.raises(
        ConfigError, match=r"YAML files need ruamel\.yaml, which is not installed: pip install 'perfnb\[configs\]'"
    ):
        preview(change, tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"TOML files need tomlkit, which is not installed: pip install 'perfnb\[configs\]'"):
        preview(change, tmp_path / "a.toml")


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-99, 99),
    st.sampled_from([0.5, 1e-5, "bf16", "no", "a b", "x: 1 # y", "it's", "", "é\n"]),
)
TREES = st.recursive(
    st.dictionaries(st.sampled_from("abcdef"), LEAVES, min_size=1, max_size=4),
    lambda inner: st.dictionaries(
        st.sampled_from("abcdef"),
        st.one_of(inner, LEAVES, st.lists(LEAVES, max_size=3), st.lists(inner, max_size=2)),
        min_size=1,
        max_size=4,
    ),
    max_leaves=8,
)


def _places(tree: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Paths of all values, and of one name in each mapping that is not there."""
    own = [("new",)]
    for name, value in tree.items():
        inner = [(name, *path) for path in _places(value)] if isinstance(value, dict) else [(name,)]
        own += inner
    return own


def _with(tree: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**tree, first: _with(tree[first], tuple(rest), value) if rest else value}


def _edited(form: TextFormat, text: str, path: tuple[str, ...], value: Any) -> str | ConfigError:
    """The text with the value, or why there is none."""
    try:
        return form.edited(text, {path: value})
    except ConfigError as error:
        return error


@given(st.data(), TREES, LEAVES, st.sampled_from([None, True, False]), st.integers(2, 5))
def test_of_any_yaml_only_the_one_value_changes_for_another_reader(
    data: st.DataObject, tree: dict[str, Any], value: Any, flow: Any, indent: int
) -> None:
    yaml = pytest.importorskip("yaml")
    text = "# top\n" + yaml.safe_dump(tree, default_flow_style=flow, indent=indent, sort_keys=False, allow_unicode=True)
    path = data.draw(st.sampled_from(_places(tree)))

    after = _edited(YAML, text, path, value)
    if isinstance(after, ConfigError):
        assert "stands on several lines" in str(after) or "block of text" in str(after)
        return

    assert yaml.safe_load(after) == _with(tree, path, value)
    assert after.startswith("# top\n")


@given(st.data(), TREES, LEAVES, st.sampled_from([None, 0, 3, "\t"]))
def test_of_any_json_only_the_one_value_changes_for_another_reader(
    data: st.DataObject, tree: dict[str, Any], value: Any, indent: Any
) -> None:
    path = data.draw(st.sampled_from(_places(tree)))

    assert json.loads(JSON.edited(json.dumps(tree, indent=indent), {path: value})) == _with(tree, path, value)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value if inner is not None] if isinstance(value, list) else value


@given(st.data(), TREES, LEAVES.filter(lambda value: value is not None))
def test_of_any_toml_only_the_one_value_changes_for_another_reader(data: st.DataObject, tree: dict[str, Any], value: Any) -> None:
    import tomlkit  # noqa: PLC0415 - skipped where it is not there

    held = _without_none(tree)
    text = "# top\n" + tomlkit.dumps(held)
    path = data.draw(st.sampled_from(_places(held)))

    after = TOML.edited(text, {path: value})

    assert after.startswith("# top\n")
    assert tomllib.loads(after) == _with(held, path, value)
