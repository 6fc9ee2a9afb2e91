"""How the GPUs of a machine are connected, read from what `nvidia-smi topo -m` prints."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from perfnb.errors import PerfnbError
from perfnb.run import Run


class TopologyFormatError(PerfnbError):
    """A text is not what `nvidia-smi topo -m` prints."""


_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*m")  # the header is underlined on a terminal, and in what was copied from one
_GPU: Final = re.compile(r"GPU(\d+)$")

# The legend that nvidia-smi prints below its matrix: X, SYS, NODE, PHB, PXB, PIX and NV with the number of links.
_LINK: Final = re.compile(r"(X|SYS|NODE|PHB|PXB|PIX|NV\d{1,3})$")
_LONGEST: Final = 1 << 20  # characters: the text of a machine with 16 GPUs has 4,000


def links_of(text: str) -> tuple[tuple[str, ...], ...]:
    r"""Link of each pair of GPUs: one row per GPU, one entry per GPU, "X" for itself.

    Parameters
    ----------
    text
        What `nvidia-smi topo -m` prints; rows and columns of network cards and what stands below the matrix are not read.

    Raises
    ------
    TopologyFormatError
        If the text holds no such matrix.

    Examples
    --------
    >>> links_of("\tGPU0\tGPU1\tNIC0\tCPU Affinity\nGPU0\t X \tNV12\tPXB\t0-31\nGPU1\tNV12\t X \tSYS\t32-63\n")
    (('X', 'NV12'), ('NV12', 'X'))
    """
    lines = [line.split() for line in _ESCAPES.sub("", text[:_LONGEST]).splitlines()]
    head = next((line for line in lines if line and line[0] == "GPU0" and not _is_row(line)), None)
    if head is None:
        message = "the text has no line with GPU0, GPU1, ...: give what `nvidia-smi topo -m` prints"
        raise TopologyFormatError(message)
    columns = [number for number, name in enumerate(head) if _GPU.match(name)]
    rows = {line[0]: line[1:] for line in lines if line and _GPU.match(line[0]) and _is_row(line)}
    names = [head[number] for number in columns]
    links = []
    for name in names:
        row = rows.get(name, [])
        found = tuple(row[number] if number < len(row) else "" for number in columns)
        if not all(_LINK.match(link) for link in found):
            message = f"the row of {name} does not hold one link for each of {len(names)} GPUs: give the whole matrix"
            raise TopologyFormatError(message)
        links.append(found)
    return tuple(links)


def with_topology(run: Run, text: str) -> Run:
    """Run whose machine knows how its GPUs are connected, from what `nvidia-smi topo -m` prints there.

    perfnb starts no process to ask for it: run the command on the machine of the training and hand its text over.

    Raises
    ------
    TopologyFormatError
        If the text holds no matrix of GPUs.
    """
    return replace(run, machine=replace(run.machine, links=links_of(text)))


def _is_row(line: list[str]) -> bool:
    return len(line) > 1 and _LINK.match(line[1]) is not None
