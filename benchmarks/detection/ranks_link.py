"""A slow link between ranks: a network of their own, whose loopback device the kernel holds to a rate."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from benchmarks.detection.case import NotPermittedError

_LIMIT_S: Final = 10.0
_BURST_BYTES: Final = 131_072
"""Two packets of the loopback device (its MTU is 65,536 bytes): a smaller bucket passes none of them on."""


def in_own_network(command: Sequence[str]) -> list[str]:
    """The command in a network of its own, with its loopback device up.

    Raises
    ------
    NotPermittedError
        If this machine does not let us: no tool, no permission, or no rate limit in its kernel.
    """
    tools = [shutil.which(name) for name in ("unshare", "ip", "tc", "sh")]
    if not all(tools):
        message = "a rate limit needs the tools unshare, ip and tc: install util-linux and iproute2"
        raise NotPermittedError(message)
    unshare, ip, tc, shell = (str(tool) for tool in tools)
    up = f"{ip} link set lo up"
    probe = f"{up} && {tc} qdisc add dev lo root tbf rate 1gbit burst {_BURST_BYTES} latency 50ms"
    try:
        done = subprocess.run(  # noqa: S603 - a tool of the system on words of this file
            [unshare, "--net", shell, "-c", probe], capture_output=True, encoding="utf-8", timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"no network of its own: {error}"
        raise NotPermittedError(message) from error
    if done.returncode != 0:
        message = f"no network of its own with a rate limit: {done.stderr.strip()[:200]}"
        raise NotPermittedError(message)
    return [unshare, "--net", shell, "-c", f'{up} && exec "$0" "$@"', *command]


def limit(bit_per_s: float | None) -> None:
    """Hold this network's loopback device to a rate, or to none."""
    tc = shutil.which("tc") or "tc"
    subprocess.run([tc, "qdisc", "del", "dev", "lo", "root"], capture_output=True, timeout=_LIMIT_S, check=False)  # noqa: S603
    if bit_per_s is not None:
        rate = ["tbf", "rate", f"{bit_per_s:.0f}bit", "burst", str(_BURST_BYTES), "latency", "400ms"]
        words = [tc, "qdisc", "add", "dev", "lo", "root", *rate]
        subprocess.run(words, capture_output=True, timeout=_LIMIT_S, check=True)  # noqa: S603
