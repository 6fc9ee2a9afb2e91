"""The dialects by name, and the one that a config is written in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.dialects import accelerate
from perfnb.config.dialects.deepspeed import DEEPSPEED
from perfnb.config.dialects.dialect import Dialect
from perfnb.config.dialects.huggingface import HUGGINGFACE
from perfnb.config.dialects.lightning import LIGHTNING
from perfnb.config.dialects.plain import PLAIN
from perfnb.config.rules import Rule
from perfnb.config.tree import ABSENT, DEEPEST, Path, can_grow, children, own
from perfnb.errors import ConfigError

DIALECTS: Final[Mapping[str, Dialect]] = {
    "plain": PLAIN,
    "deepspeed": DEEPSPEED,
    "accelerate": accelerate.FILE,
    "huggingface": HUGGINGFACE,
    "lightning": LIGHTNING,
    "accelerator": accelerate.ARGUMENTS,
}
"""Name to dialect; where none is named they are tried in this order, the plain names last."""


def dialect_of(node: Any) -> Dialect:
    """The dialect in which a node of a config is written, from the names that it holds.

    Examples
    --------
    >>> dialect_of({"zero_optimization": {"stage": 2}}).name
    'DeepSpeed'
    >>> dialect_of({"num_workers": 2}).name
    'plain names'
    """
    names = children(node) or {}
    return next((each for each in DIALECTS.values() if each is not PLAIN and each.matches(names)), PLAIN)


def view(node: Any, dialect: Dialect | None = None, depth: int = 0) -> dict[Any, Any]:
    """The config with canonical knobs and values in place of the library's own, nested as it is.

    Parameters
    ----------
    node
        A config, or a node of one.
    dialect
        The dialect of this node, where it is known; those within are recognised.
    depth
        Levels above.

    Raises
    ------
    ConfigError
        If the config is nested too deep, or holds itself.

    Examples
    --------
    >>> view({"trainer": {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}, "seed": 1})["trainer"]["precision"]
    'bf16'
    """
    if depth > DEEPEST:
        message = f"the config is nested more than {DEEPEST} levels deep, or holds itself: no knob is looked for there"
        raise ConfigError(message)
    names = children(node) or {}
    dialect = dialect or dialect_of(node)
    held = held_rules(node, dialect)
    seen: dict[Any, Any] = dict(held)
    claims = _used(names, held) | (dialect.claims if dialect is not PLAIN else frozenset())
    for name, value in names.items():
        if name in claims or name in seen:
            continue
        if children(value) is None:
            seen[name] = own(value)
        elif dialect.sections is None or name in dialect.sections:
            seen[name] = view(value, depth=depth + 1)
    return seen


def held_rules(node: Any, dialect: Dialect) -> dict[str, Any]:
    """Knob to value, for the knobs that the rules of a dialect find at the top of a node.

    What a library assumes where nothing is said counts only where the node would take the value.
    """
    names = children(node) or {}
    grows = can_grow(node)
    found = {rule.knob: (rule, rule.read(names)) for rule in rules_of(names, dialect)}
    return {
        knob: value
        for knob, (rule, value) in found.items()
        if value is not ABSENT and (grows or any(path[0] in names for path in rule.paths))
    }


def rules_of(names: Mapping[Any, Any], dialect: Dialect) -> list[Rule]:
    """Rules for a node: those of the dialect, and the usual other names where it may hold names of the user's own.

    A knob that stands under its canonical name needs no rule of the usual names.
    """
    if dialect is PLAIN:
        return [rule for rule in PLAIN.rules if rule.knob not in names]
    if dialect.sections is not None:
        return list(dialect.rules)
    spoken_for = {rule.knob for rule in dialect.rules} | names.keys()
    return [
        *dialect.rules,
        *(rule for rule in PLAIN.rules if rule.knob not in spoken_for and not dialect.claims & {path[0] for path in rule.paths}),
    ]


def _used(names: Mapping[Any, Any], held: Mapping[str, Any]) -> frozenset[Any]:
    """Other names of the knobs that were found under them."""
    paths: list[Path] = [path for knob in held if (rule := PLAIN.rule(knob)) is not None for path in rule.paths]
    return frozenset(path[0] for path in paths if path[0] in names)
