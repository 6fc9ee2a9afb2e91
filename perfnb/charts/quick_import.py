"""altair imported without the parsers that one of its dependencies builds at import, which nobody here calls.

Beside JupyterLab `import jsonschema`, and so `import altair`, imports `rfc3987_syntax` 1.1, which builds a parser for every rule
of international addresses: most of the time of the whole import. They check the formats `iri` and `iri-reference`, which no
schema of a chart has; whoever checks one in this process gets them then.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

_BUILDS_PARSERS: Final = "rfc3987_syntax"


class _StandIn(ModuleType):
    """Stands for the module while jsonschema takes its one function; anything else comes from the module itself."""

    @staticmethod
    def is_valid_syntax(*arguments: Any, **named: Any) -> Any:
        """The module's own, imported at its first call."""
        return importlib.import_module(_BUILDS_PARSERS).is_valid_syntax(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks whether this is a package
            raise AttributeError(name)
        if sys.modules.get(_BUILDS_PARSERS) is self:
            del sys.modules[_BUILDS_PARSERS]
        return getattr(importlib.import_module(_BUILDS_PARSERS), name)


def _import_altair() -> None:
    """Import altair; jsonschema, where nobody has imported it yet, with parsers that are built when they are called."""
    spec = None if {"jsonschema", _BUILDS_PARSERS} & sys.modules.keys() else find_spec(_BUILDS_PARSERS)
    if spec is not None:
        stand_in = sys.modules[_BUILDS_PARSERS] = _StandIn(_BUILDS_PARSERS)
        stand_in.__spec__ = spec
        try:
            importlib.import_module("jsonschema")
        finally:
            if sys.modules.get(_BUILDS_PARSERS) is stand_in:
                del sys.modules[_BUILDS_PARSERS]
    importlib.import_module("altair")


_import_altair()
