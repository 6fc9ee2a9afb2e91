"""TOML: tomlkit keeps comments, order and spelling of all that is not changed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.formats.text_format import grouped, misplaced, newline_of
from perfnb.config.tree import ABSENT, Path, at
from perfnb.errors import ConfigError, NoLibraryError
from perfnb.safe_text import clean

_LONGEST: Final = 300


class TomlText:
    """The TOML format."""

    name: Final = "TOML"

    def parsed(self, text: str) -> dict[Any, Any]:
        """What the text holds."""
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            message = f"is not TOML: {clean(error, _LONGEST)}"
            raise ConfigError(message) from error

    def edited(self, text: str, edits: Mapping[Path, Any]) -> str:
        """The text with other values."""
        try:
            import tomlkit  # noqa: PLC0415 - only who has a TOML file needs it
            from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415 - as above
        except ImportError as error:
            message = "TOML"
            raise NoLibraryError(message, "tomlkit", "configs") from error
        held = self.parsed(text)
        edit = grouped(edits, lambda path: at(held, path) is not ABSENT)
        for path, value in edit:
            if _has_none(value):
                raise misplaced(path, "TOML has no null: it is left out where nothing is meant")
        try:
            document = tomlkit.parse(text)
            if document.as_string() != text:
                raise misplaced((), "tomlkit does not keep the text as it is")
            for path, value in edit:
                table: Any = document
                for name in path[:-1]:
                    table = table[name]
                table[path[-1]] = value
            new = str(document.as_string())
        except (TOMLKitError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise misplaced(edit[0][0], clean(error, _LONGEST)) from error
        return re.sub(r"(?<!\r)\n", "\r\n", new) if newline_of(text) == "\r\n" and "\n" not in text.replace("\r\n", "") else new


def _has_none(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_none, value.values()))
    return any(map(_has_none, value)) if isinstance(value, (list, tuple)) else value is None
