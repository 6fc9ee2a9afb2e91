"""Lists that a profiler wrote as JSON text: shapes, types, grids."""

from __future__ import annotations

import json
from typing import Any


def json_list(text: object) -> list[Any]:
    """The list that a text holds; empty where it is no JSON list, however deep it nests.

    Examples
    --------
    >>> json_list("[[8,16],[16,4]]"), json_list("12"), json_list("[" * 100_000), json_list(None)
    ([[8, 16], [16, 4]], [], [], [])
    """
    try:
        value = json.loads(text) if isinstance(text, str) and text else []
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []
