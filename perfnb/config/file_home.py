"""Configs that are files: JSON, YAML and TOML, changed where a value stands; all other bytes stay as they are."""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, Final

from perfnb.config.dialects.dialect import Dialect
from perfnb.config.formats.json_text import JsonText
from perfnb.config.formats.text_format import TextFormat
from perfnb.config.formats.toml_text import TomlText
from perfnb.config.formats.yaml_text import YamlText
from perfnb.config.home import Home
from perfnb.config.safe_file import latest_backup, read_bytes, replace_bytes, restore_bytes
from perfnb.config.tree import Path, rebuilt, same
from perfnb.errors import ConfigError
from perfnb.safe_text import clean

FORMATS: Final[Mapping[str, TextFormat]] = {
    ".json": JsonText(),
    ".jsonc": JsonText(),
    ".yaml": YamlText(),
    ".yml": YamlText(),
    ".toml": TomlText(),
}
"""Ending of a file's name to its format."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class FileHome(Home):
    """A config file as it was read, with the text that it gets when it is written.

    Parameters
    ----------
    path
        A .json, .yaml, .yml or .toml file; `~` is the home of a user.
    dialect, names
        As in `Home`.
    content
        Its bytes; read from the file by default.

    Attributes
    ----------
    backup
        Where the bytes before the last change lie; None before one is written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dialect: Dialect | None = None,
        names: Mapping[str, Path] | None = None,
        content: bytes | None = None,
    ) -> None:
        self.path = _expanded(path)
        super().__init__(self.path, dialect, names)
        self.format = _format_of(self.path)
        self.content = read_bytes(self.path) if content is None else content
        self.backup: FilePath | None = None
        self._mark, self._encoding = next(
            ((mark, name) for mark, name in _MARKS if self.content.startswith(mark)), (b"", "utf-8")
        )

    @cached_property
    def text(self) -> str:
        """The text of the file, without the mark of its encoding."""
        body = self.content[len(self._mark) :]
        try:
            text = body.decode(self._encoding)
        except UnicodeDecodeError as error:
            message = f"{self._name} is not {self._encoding.upper()} text: byte {error.start} does not fit; save it as UTF-8"
            raise ConfigError(message) from error
        if text.encode(self._encoding) != body:
            message = f"{self._name} is {self._encoding.upper()} text that cannot be written back as it is; save it as UTF-8"
            raise ConfigError(message)
        return text

    @cached_property
    def tree(self) -> dict[Any, Any]:
        """The config in its own names."""
        return self._parsed(self.text)

    @property
    def kind(self) -> str:
        """What kind of home it is."""
        return f"{self.format.name} file {self._name}"

    @property
    def words(self) -> str:
        """The home in words."""
        title = "" if self.dialect.name == "plain names" else f", {self.dialect.name} {self.dialect.title}".rstrip()
        return f"{self._name} ({self.format.name}{title})"

    @property
    def label(self) -> str:
        """What a diff calls it."""
        return self._name

    @property
    def _name(self) -> str:
        return clean(self.path, 200)

    def with_edits(self, edits: Mapping[Path, Any]) -> FileHome:
        """The file with another text; nothing is written yet.

        The new text is read again before it is believed: it must hold what the old one held, but for the edits.
        """
        try:
            text = self.format.edited(self.text, edits)
        except ConfigError as error:
            if type(error) is not ConfigError:
                raise
            message = f"{self._name}: {error}"
            raise ConfigError(message) from error
        try:
            content = self._mark + text.encode(self._encoding)
            unharmed = same(self._parsed(text), rebuilt(self.tree, edits))
        except (UnicodeEncodeError, ConfigError):
            unharmed = False
        if not unharmed:
            named = " and ".join(clean(".".join(map(str, path)), 80) for path in edits)
            message = f"{self._name}: {named} cannot be changed without touching something else; change it by hand"
            raise ConfigError(message)
        return FileHome(self.path, self._given, self._names, content)

    def commit(self, before: FileHome) -> FileHome:
        """Write the file in place of what it held before; `StaleChange` where it holds something else by now."""
        if self.content != before.content:
            self.backup = replace_bytes(self.path, before.content, self.content)
        return self

    def reverted(self) -> FileHome:
        """The file as it was before the last change, from its backup; nothing is written yet."""
        return FileHome(self.path, self._given, self._names, latest_backup(self.path))

    def commit_revert(self, before: FileHome) -> FileHome:
        """Put the backup back."""
        restore_bytes(self.path, before.content)
        return self

    def _parsed(self, text: str) -> dict[Any, Any]:
        try:
            return self.format.parsed(text)
        except ConfigError as error:
            if type(error) is not ConfigError:
                raise
            message = f"{self._name} {error}"
            raise ConfigError(message) from error


def _expanded(path: str | os.PathLike[str]) -> FilePath:
    try:
        return FilePath(path).expanduser()
    except RuntimeError:  # there is no such user, but there may be a file of that name
        return FilePath(path)


def _format_of(path: FilePath) -> TextFormat:
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        message = f"{clean(path, 200)} is no config file that perfnb changes: there are {', '.join(FORMATS)}"
        raise ConfigError(message)
    return found
