"""Stacks of a snapshot as text: `file:line:name` from the innermost frame outwards, joined by semicolons."""

from __future__ import annotations

from typing import Any, Final

_MOST_FRAMES: Final = 64
"""Of one stack, from the innermost outwards: what stands further out is the loop and the interpreter."""
_MOST_CHARACTERS: Final = 200
"""Of a frame's file or name; file names keep their end."""

MOST_TEXT: Final = 200_000_000
"""Characters of all stacks that differ; a training has some hundred stacks, and a small file could ask for gigabytes."""

_UNWINDING: Final = ("torch::unwind::unwind", "torch::CapturedTraceback::gather", "gather_with_cpp")
"""Frames of the recorder itself."""


class Stacks:
    """Texts of lists of frames; each list is written once, however many events share it."""

    def __init__(self, most_characters: int = MOST_TEXT) -> None:
        self.left_out = 0
        self._left = most_characters
        self._unique: dict[str, str] = {}
        self._texts: dict[int, tuple[Any, str | None]] = {}  # the list is kept, so that its id stays its own
        self._frames: dict[int, tuple[Any, str | None]] = {}

    def text(self, frames: Any) -> str | None:
        """Text of a stack; None where there is none, or what stands there is no list of frames."""
        if not isinstance(frames, list | tuple) or not frames:
            return None
        found = self._texts.get(id(frames))
        if found is None:
            parts = []
            for frame in frames:
                part = self._frame(frame)
                if part is not None:
                    parts.append(part)
                    if len(parts) == _MOST_FRAMES:
                        break
            found = (frames, self._kept(";".join(parts)))
            self._texts[id(frames)] = found
        return found[1]

    def _kept(self, text: str) -> str | None:
        """The text, once for all lists that read the same; None once there are too many."""
        if text not in self._unique:
            if len(text) > self._left:
                self.left_out += 1
                return None
            self._left -= len(text)
            self._unique[text] = text
        return self._unique[text] or None

    def _frame(self, frame: Any) -> str | None:
        found = self._frames.get(id(frame))
        if found is None:
            found = (frame, _written(frame))
            self._frames[id(frame)] = found
        return found[1]


def _written(frame: Any) -> str | None:
    if not isinstance(frame, dict):
        return None
    file, line, name = frame.get("filename"), frame.get("line"), frame.get("name")
    if not isinstance(name, str) or name.startswith(_UNWINDING) or _UNWINDING[2] in name[:_MOST_CHARACTERS]:
        return None
    shown = _safe(file[-_MOST_CHARACTERS:]) if isinstance(file, str) else "??"
    return f"{shown}:{line if type(line) is int and 0 <= line < 1 << 31 else 0}:{_safe(name[:_MOST_CHARACTERS])}"


def _safe(text: str) -> str:
    """Text without the sign that parts frames, and without halves of characters, which no file can hold."""
    return text.replace(";", ",").encode("utf-8", "replace").decode("utf-8")
