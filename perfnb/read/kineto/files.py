"""Which files the paths of a call mean: files, folders and glob patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Final

from perfnb.errors import TraceFormatError

_SUFFIXES: Final = (".json", ".json.gz")
_SHOWN: Final = 6


def trace_files(paths: Sequence[str | PathLike[str]]) -> tuple[list[Path], frozenset[Path]]:
    """Files to read, each once, and those among them that may be skipped because a folder or a pattern merely holds them.

    Raises
    ------
    TraceFormatError
        If a path does not exist, a folder holds no `*.json` or `*.json.gz`, or a pattern matches nothing.
    """
    files: list[Path] = []
    found: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            inside = _inside(path)
            found.update(inside)
            files += inside
        elif path.exists():
            files.append(path)
        elif glob.has_magic(fspath(path)):
            matched = [Path(each) for each in sorted(glob.glob(fspath(path), recursive=True))]  # noqa: PTH207 - a pattern may start at the root
            matched = [each for each in matched if each.is_file()]
            if not matched:
                message = f"no file matches {path.name}: name a folder or files"
                raise TraceFormatError(message)
            found.update(matched)
            files += matched
        else:
            message = f"{path} does not exist"
            raise TraceFormatError(message)
    once = {file.resolve(): file for file in reversed(files)}  # a file named twice is read once, in its first place
    return [file for file in dict.fromkeys(files) if once[file.resolve()] == file], frozenset(found)


def _inside(folder: Path) -> list[Path]:
    inside = sorted(each for each in folder.iterdir() if each.name.endswith(_SUFFIXES) and each.is_file())
    if not inside:
        others = ", ".join(sorted(each.name for each in folder.iterdir())[:_SHOWN]) or "nothing"
        message = f"folder {folder.name or folder} holds no *.json or *.json.gz file (it holds {others}): name a folder of traces"
        raise TraceFormatError(message)
    return inside
