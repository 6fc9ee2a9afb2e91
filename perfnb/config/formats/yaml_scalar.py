"""A single value of YAML: what a text without quotes means, and a text that every reader takes for the same value."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from perfnb.config.formats.text_format import misplaced
from perfnb.config.tree import Path

_WHOLE: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_BASED: Final = re.compile(r"[-+]?0(?:x[0-9a-fA-F_]+|o[0-7_]+|b[01_]+)")
_DECIMAL: Final = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SPECIAL: Final = re.compile(r"([-+]?)\.(inf|Inf|INF|nan|NaN|NAN)")
_SAFE: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null"), None),
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
_DOUBTFUL: Final = frozenset({*_WORDS, "y", "n", "nan", "inf"})
_LARGEST_DIGITS: Final = 4000
_PLANE: Final = 0xFFFF
_BYTE: Final = 0xFF


def value_of_scalar(text: str, style: str | None, tag: str) -> Any:
    """What a scalar means.

    Without quotes and tag as PyYAML and OmegaConf have it, which most training programs use: yes, no, on and off are
    booleans; 1e-4 is a number, as in OmegaConf and in YAML 1.2.

    Examples
    --------
    >>> [value_of_scalar(text, None, "") for text in ("4", "1e-4", "no", "~", "bf16", "0x10")]
    [4, 0.0001, False, None, 'bf16', 16]
    >>> value_of_scalar("no", "'", "")
    'no'
    """
    if style is not None or (tag and not tag.startswith("tag:yaml.org,2002:")):
        return text
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return _WORDS[text.lower()]
    if len(text) > _LARGEST_DIGITS:
        return text
    if _WHOLE.fullmatch(text):
        return int(text.replace("_", ""))
    if _BASED.fullmatch(text):
        return int(text.replace("_", ""), 0)
    if _DECIMAL.fullmatch(text):
        return float(text.replace("_", ""))
    special = _SPECIAL.fullmatch(text)
    return float(f"{special[1]}{special[2]}") if special else text


def written(value: Any, path: Path, style: str | None = None, before: str = "") -> str:
    """A value as one line of YAML, in the quotes that stood there where it is a text.

    Parameters
    ----------
    value
        A text, number, boolean, None, or lists and mappings of them.
    path
        Where it goes, for the error.
    style
        Quotes of the value that it replaces.
    before
        The text that it replaces.

    Examples
    --------
    >>> [written(value, ()) for value in (True, None, 1e-05, "bf16", "no", [1, "a: b"])]
    ['true', 'null', '1.0e-05', 'bf16', '"no"', '[1, "a: b"]']
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(name, path)}: {written(inner, path)}" for name, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(written(inner, path) for inner in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return _number(value)
    if not isinstance(value, str):
        raise misplaced(path, f"YAML has no text for a {type(value).__name__}")
    if style == "'" and before[:1] == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    if style is None and _SAFE.fullmatch(value) and value.lower() not in _DOUBTFUL:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _number(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return "-.inf" if value < 0 else ".inf"
    digits, sign, power = repr(value).partition("e")
    return f"{digits}{'' if '.' in digits else '.0'}{sign}{power}"


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number <= _BYTE else f"\\u{number:04x}" if number <= _PLANE else f"\\U{number:08x}"
