"""One library's way to write a config: how it is recognised, and its rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perfnb.config.rules import Rule


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """The names and values by which one library knows the knobs.

    Attributes
    ----------
    name
        The library, as in "train.yaml (YAML, DeepSpeed)".
    rules
        Where each knob stands.
    matches
        Whether a node is written so, from the names that it holds.
    title
        What the library itself calls such a config.
    sections
        Names of nodes inside, which are looked at as configs of their own; None for all.
    """

    name: str
    rules: tuple[Rule, ...]
    matches: Callable[[Mapping[Any, Any]], bool]
    title: str = ""
    sections: frozenset[str] | None = field(default=frozenset())

    def rule(self, knob: str) -> Rule | None:
        """The rule of a knob; None where the library does not have it."""
        return next((rule for rule in self.rules if rule.knob == knob), None)

    @property
    def claims(self) -> frozenset[Any]:
        """Names at the top of a node that the rules speak for."""
        return frozenset(path[0] for rule in self.rules for path in rule.paths)
