"""Bus bandwidth that a kind of link is known to reach: the one table of it, with where each number comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from perfnb.run import Machine

LinkKind = Literal["NVLink", "PCIe", "network"]

MEASURED: Final = "bus_bytes_per_s"
"""Name in `Machine.constants` of what the link was measured to reach (bus bandwidth, as nccl-tests prints it)."""

NETWORK: Final = "network_bytes_per_s"
"""Name in `Machine.constants` of the rate of a machine's network cards per GPU: of one, times their number, over GPUs."""

_NETWORK_SHARE: Final = 0.9  # of the rate of the cards that collectives reach (a prior)
_PAIR: Final = 2


@dataclass(frozen=True, slots=True)
class Expected:
    """Bus bandwidth to expect of a link.

    Attributes
    ----------
    link
        Kind of link.
    bytes_per_s
        Low end of what it is known to reach.
    source
        Where that comes from.
    """

    link: LinkKind
    bytes_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class _Row:
    link: LinkKind
    device: str  # part of the product name, in capitals
    without: str  # what the name must not hold
    ranks: int | None  # for this number of ranks only
    gigabytes_per_s: float
    source: str


# First match counts. Low ends: detectors.md, section 4, gives ranges.
_TABLE: Final = (
    _Row("NVLink", "V100", "", None, 120, "a prior: 120 to 130 GB/s of a V100 on NVLink"),
    _Row("NVLink", "A100", "", _PAIR, 208, "NVIDIA nccl-tests issue 178: a pair of A100"),
    _Row("NVLink", "A100", "", None, 230, "NVIDIA nccl-tests issue 178: 230 to 240 GB/s of A100 on NVLink"),
    _Row("NVLink", "H100 PCIE", "", None, 115, "NVIDIA nccl issue 1161: two H100 PCIe with a bridge"),
    _Row("NVLink", "H100", "PCIE", None, 370, "NVIDIA nccl-tests issue 212: 370 GB/s in a ring; 475 to 480 with NVLink SHARP"),
    _Row("NVLink", "H200", "", None, 370, "NVIDIA nccl-tests issues 212 and 272: as H100"),
    _Row("PCIe", "V100", "", None, 11, "a prior: 11 to 12 GB/s of PCIe 3 x16"),
    _Row("PCIe", "T4", "", None, 11, "a prior: 11 to 12 GB/s of PCIe 3 x16"),
    _Row("PCIe", "A100", "", None, 20, "a prior: 20 to 25 GB/s of PCIe 4 x16"),
    _Row("PCIe", "A10", "", None, 20, "a prior: 20 to 25 GB/s of PCIe 4 x16"),
    _Row("PCIe", "A30", "", None, 20, "a prior: 20 to 25 GB/s of PCIe 4 x16"),
    _Row("PCIe", "A40", "", None, 20, "a prior: 20 to 25 GB/s of PCIe 4 x16"),
    _Row("PCIe", "L40", "", None, 20, "a prior: 20 to 25 GB/s of PCIe 4 x16"),
    _Row("PCIe", "H100", "", None, 40, "a prior: 40 to 50 GB/s of PCIe 5 x16"),
    _Row("PCIe", "H200", "", None, 40, "a prior: 40 to 50 GB/s of PCIe 5 x16"),
)


def link_between(links: Sequence[Sequence[str]]) -> LinkKind | None:
    """Kind of link that a ring over all GPUs of a machine uses; None for less than two.

    NVLink where its links connect all of them, directly or through one another as in a cube mesh; else the ring has to pass
    PCIe.

    Examples
    --------
    >>> link_between((("X", "NV12"), ("NV12", "X")))
    'NVLink'
    >>> link_between((("X", "NV4", "SYS"), ("NV4", "X", "SYS"), ("SYS", "SYS", "X")))
    'PCIe'
    """
    if len(links) < _PAIR:
        return None
    reached, open_ones = {0}, [0]
    while open_ones:
        row = links[open_ones.pop()]
        found = {number for number, link in enumerate(row) if link.startswith("NV")} - reached
        reached |= found
        open_ones += sorted(found)
    return "NVLink" if len(reached) == len(links) else "PCIe"


def expected_bandwidth(machine: Machine, ranks: int | None, devices: Sequence[int] = ()) -> Expected | str:
    """Bus bandwidth to expect of the link between ranks, or why it is not known.

    Parameters
    ----------
    machine
        Of the run: a measured link in its constants comes first, then its links with the table.
    ranks
        Number of ranks that communicate, None where unknown.
    devices
        Numbers of their devices, where each rank has another one of one machine.

    Examples
    --------
    >>> pair = Machine(devices=("NVIDIA A100-SXM4-80GB",) * 2, links=(("X", "NV12"), ("NV12", "X")))
    >>> found = expected_bandwidth(pair, 2)
    >>> found.link, found.bytes_per_s / 1e9
    ('NVLink', 208.0)
    >>> expected_bandwidth(Machine(), 8)
    'which link the ranks use is not known: perfnb.read.topology.with_topology(run, text of `nvidia-smi topo -m`)'
    """
    measured = machine.constants.get(MEASURED)
    if measured is not None:
        return Expected(_kind(machine, ranks) or "network", float(measured), "measured on this machine")
    if not machine.links:
        return "which link the ranks use is not known: perfnb.read.topology.with_topology(run, text of `nvidia-smi topo -m`)"
    if ranks is None:
        return "how many ranks communicate is not known"
    kind = _kind(machine, ranks, devices)
    if kind == "network":
        rate = machine.constants.get(NETWORK)
        if rate is None:
            gpus = len(machine.links)
            return f"{ranks} ranks on {gpus} GPUs use a network: put its rate per GPU as {NETWORK} into Machine.constants"
        return Expected("network", _NETWORK_SHARE * float(rate), "a prior: .9 of the rate of the network cards per GPU")
    if kind is None:
        return f"which of {len(machine.links)} GPUs the {ranks} ranks use is not known, and not all are connected alike"
    name = machine.devices[0].upper() if machine.devices else ""
    row = next((each for each in _TABLE if each.link == kind and _fits(each, name, ranks)), None)
    if row is None:
        return f"no figure is known for {kind} of {machine.devices[0] if name else 'an unknown GPU'}: measure it with nccl-tests"
    return Expected(kind, row.gigabytes_per_s * 1e9, row.source)


def _kind(machine: Machine, ranks: int | None, devices: Sequence[int] = ()) -> LinkKind | None:
    """Link of a ring over the ranks: those on the given devices, else any as many of the machine if that makes no difference."""
    links = machine.links
    if not links or ranks is None:
        return None
    if ranks > len(links):
        return "network"
    if len(set(devices)) == ranks and max(devices) < len(links):
        chosen = sorted(set(devices))
        return link_between([[links[one][other] for other in chosen] for one in chosen])
    if ranks == len(links):
        return link_between(links)
    kinds = {"NVLink" if link.startswith("NV") else "PCIe" for row in links for link in row if link != "X"}
    return ("NVLink" if kinds == {"NVLink"} else "PCIe") if len(kinds) == 1 else None


def _fits(row: _Row, name: str, ranks: int) -> bool:
    has_name = row.device in name.replace("-", " ")
    return has_name and not (row.without and row.without in name) and row.ranks in (None, ranks)
