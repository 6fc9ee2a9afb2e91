"""Values that a config's own names call secret: a report is made to be passed on, so they stay out of it."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "(not shown: its name says that it is a secret)"

_WORDS: Final = r"(?:token|secret|password|passwd|passphrase|api_?key|access_?key|private_?key|credentials?)"
_NAME: Final = re.compile(rf"(?:^|[._\- ]|(?<=[a-z]))(?:\w+[_\-])?{_WORDS}$", re.IGNORECASE)
_LINE: Final = re.compile(
    rf"^(?P<start>[-+ ]?\s*[\"']?(?:[\w.]+[_\-.])?{_WORDS}[\"']?\s*[:=]\s*)(?P<value>.*?)(?P<end>,?)$", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Whether a name says that its value is a secret.

    Examples
    --------
    >>> [is_secret(name) for name in ("wandb.api_key", "HF_TOKEN", "tokenizer", "max_tokens", "hubToken", "password")]
    [True, True, False, False, True, True]
    """
    return _NAME.search(name) is not None


def without_secret(line: str) -> str:
    """A line of a config, or of its diff, without the value that its name calls secret.

    Examples
    --------
    >>> without_secret('   "api_key": "abc",'), without_secret("-  num_workers: 0")
    ('   "api_key": (not shown: its name says that it is a secret),', '-  num_workers: 0')
    """
    return _LINE.sub(
        lambda found: f"{found['start']}{HIDDEN}{found['end']}" if found["value"] not in ("{", "[", "") else found[0], line
    )
