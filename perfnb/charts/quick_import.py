"""altair imported without the parsers that one of its dependencies builds at import, which nobody here calls.

Beside JupyterLab `import jsonschema`, and so `import altair`, imports `rfc3987_syntax` 1.1, which builds 38 parsers of
international addresses: most of the time of the whole import. They check the formats `iri` and `iri-reference`, which no schema
of a chart has; whoever checks one in this process gets them then.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

_BUILDS_PARSERS: Final = "rfc3987_syntax"


def _is_valid_syntax(*arguments: Any, **named: Any) -> Any:
    """`rfc3987_syntax.is_valid_syntax`, imported at its first call."""
    return importlib.import_module(_BUILDS_PARSERS).is_valid_syntax(*arguments, **named)


def import_altair() -> None:
    """Import altair; jsonschema, where nobody has imported it yet, with parsers that are built when they are called."""
    if "jsonschema" not in sys.modules and _BUILDS_PARSERS not in sys.modules and find_spec(_BUILDS_PARSERS) is not None:
        stand_in = ModuleType(_BUILDS_PARSERS)
        stand_in.is_valid_syntax = _is_valid_syntax  # type: ignore[attr-defined]
        sys.modules[_BUILDS_PARSERS] = stand_in
        try:
            importlib.import_module("jsonschema")
        finally:
            del sys.modules[_BUILDS_PARSERS]
    importlib.import_module("altair")


import_altair()
