"""Configs that are values in memory: dict, dataclass, argparse Namespace, OmegaConf, TrainingArguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.home import Home
from perfnb.config.tree import Path, rebuilt


class ObjectHome(Home):
    """A config that is a value in memory: a change makes a new one of the same make, `.value`."""

    def with_edits(self, edits: Mapping[Path, Any]) -> ObjectHome:
        """A new home with a new value; the given one stays as it is."""
        return ObjectHome(rebuilt(self.value, edits), self._given, self._names)
