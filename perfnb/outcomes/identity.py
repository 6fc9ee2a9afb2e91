"""What the accuracy ledger says of a run and its changes, and what it leaves out: paths, hosts' names, the rest of the config."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from perfnb import text
from perfnb.config.mapping import has_knob, value_of
from perfnb.prediction import Change
from perfnb.run import Run

PATH: Final = "<path>"
_SIZE: Final = 4  # bytes of a digest: enough to tell a few thousand jobs apart
_LONGEST: Final = 80
_LONGEST_SENTENCE: Final = 400
_PATHS: Final = re.compile(r"(?<![\w.<])(?:~|[A-Za-z]:[\\/]|\\\\|/)[\w.@~-]+(?:[\\/][\w.@~-]*)+|\b\w+://[^\s,;]+")
_TRAINED: Final = ("workload", "task", "model", "model_name", "model_name_or_path", "architecture", "dataset", "dataset_name")
"""Knobs that say what is trained, by the names that Hugging Face, timm and torchvision give them."""


def stored_value(value: Any) -> str | int | float | bool | None:
    """A changed knob's value as the ledger holds it: a number or a short text, and of a path only that it is one.

    Examples
    --------
    >>> stored_value(4), stored_value("bf16"), stored_value("/data/mine"), stored_value([1, 2])
    (4, 'bf16', '<path>', '[1, 2]')
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return int(value)
    if isinstance(value, float) and value - value == 0.0:
        return float(value)
    if isinstance(value, PurePath):
        return PATH
    return PATH if _is_path(told := str(value)) else stored_text(told, _LONGEST)


def stored_text(words: str, longest: int = _LONGEST_SENTENCE, changes: Sequence[Change] = ()) -> str:
    """A sentence as the ledger holds it: on one line, its paths left out.

    Examples
    --------
    >>> stored_text("reads of /data/mine/train take 3/4 of it")
    'reads of <path> take 3/4 of it'
    """
    named = sorted({str(value) for change in changes for value in (change.before, change.after) if _is_path(str(value))}, key=len)
    for path in reversed(named):
        words = words.replace(path, PATH)
    told = text.clean(_PATHS.sub(PATH, words), longest)
    return told.encode("utf-8", "replace").decode("utf-8")


def workload_of(config: Mapping[str, Any], changed: Sequence[str] = ()) -> str:
    """A short digest that stands for what is trained; empty where the config is not known.

    Of what the knobs are named and what those hold that name the model and its data: other values do not count, so that a
    job with another seed or batch size stays the same job. Two jobs of one script whose config names neither model nor data
    count as one, which makes a track record count for less, never for more.

    Examples
    --------
    >>> workload_of({"model": "resnet50", "seed": 1}) == workload_of({"model": "resnet50", "seed": 2})
    True
    >>> workload_of({"model": "resnet50"}) == workload_of({"model": "resnet18"})
    False
    """
    if not config:
        return ""
    named = {knob: str(value_of(config, knob)) for knob in _TRAINED if knob not in changed and has_knob(config, knob)}
    return digest([sorted(map(str, config)), named])


def machine_of(run: Run) -> tuple[str, int]:
    """A digest that stands for the hosts, and how many there are; empty where nothing is known of them."""
    hosts = sorted({str(host) for host in run.host_samples["host"].dropna()})
    machine = run.machine
    told = [hosts, machine.devices, machine.cpu_capacity]
    return (digest(told) if any(told) else "", max(len(hosts), 1))


def device_of(run: Run) -> str:
    """Names of the accelerators; "cpu" where the run used none."""
    names = sorted(set(run.machine.devices))
    if run.uses_device:
        return stored_text(", ".join(names) or "unknown accelerator", _LONGEST)
    return "cpu"


def digest(told: Any) -> str:
    """A few hexadecimal digits that stand for a value."""
    written = json.dumps(told, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.blake2b(written.encode(), digest_size=_SIZE).hexdigest()


def _is_path(told: str) -> bool:
    return told.startswith(("/", "~", ".", "\\")) or "\\" in told or "/" in told or (len(told) > 2 and told[1] == ":")  # noqa: PLR2004 - a drive's letter
