"""The matrix that nvidia-smi prints, as it comes: underlined, with network cards, cut off, or not there."""

from __future__ import annotations

import pytest

from perfnb.analyses.expected_bandwidth import MEASURED, NETWORK, Expected, expected_bandwidth, link_between
from perfnb.read.topology import TopologyFormatError, links_of, with_topology
from perfnb.run import Machine, Run

MATRIX = (
    "\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV12\tSYS\tPXB\t0-31\t0\t\tN/A\n"
    "GPU1\tNV12\t X \tNODE\tSYS\t0-31\t0\t\tN/A\n"
    "GPU2\tSYS\tNODE\t X \tPHB\t32-63\t1\t\tN/A\n"
    "NIC0\tPXB\tSYS\tPHB\t X \t\t\t\t\n\n"
    "Legend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n\nNIC Legend:\n\n  NIC0: mlx5_0\n"
)
A100 = ("NVIDIA A100-SXM4-80GB",)
PAIR = (("X", "NV12"), ("NV12", "X"))


def test_rows_and_columns_of_gpus_are_read_and_network_cards_are_not() -> None:
    assert links_of(MATRIX) == (("X", "NV12", "SYS"), ("NV12", "X", "NODE"), ("SYS", "NODE", "X"))


def test_a_run_takes_the_links_into_its_machine() -> None:
    run = with_topology(Run(machine=Machine(cpu_capacity=4.0)), MATRIX)

    assert run.machine.cpu_capacity == 4.0
    assert run.machine.links[0][1] == "NV12"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no line with GPU0, GPU1"),
        ("NVIDIA-SMI has failed", "has no line with GPU0, GPU1"),
        ("\tGPU0\tGPU1\nGPU0\t X \tNV12\n", "the row of GPU1 does not hold one link for each of 2 GPUs"),
        ("\tGPU0\tGPU1\nGPU0\t X \tNV12\nGPU1\tNV12\n", "the row of GPU1"),
        ("\tGPU0\tGPU1\nGPU0\t X \tevil\nGPU1\tNV12\t X \n", "the row of GPU0"),
    ],
)
def test_another_text_is_refused_with_what_to_give(text: str, reason: str) -> None:
    with pytest.raises(TopologyFormatError, match=reason):
        links_of(text)


def test_a_ring_over_all_gpus_uses_nvlink_only_where_its_links_reach_them_all() -> None:
    mesh = (("X", "NV1", "SYS"), ("NV1", "X", "NV1"), ("SYS", "NV1", "X"))  # as in a cube mesh: through the one in the middle

    assert link_between(mesh) == "NVLink"
    assert link_between(links_of(MATRIX)) == "PCIe"
    assert link_between((("X",),)) is None


@pytest.mark.parametrize(
    ("name", "links", "ranks", "gigabytes"),
    [
        ("NVIDIA A100-SXM4-80GB", PAIR, 2, 208),
        ("NVIDIA H100 80GB HBM3", PAIR, 2, 370),
        ("NVIDIA H100 PCIe", PAIR, 2, 115),
        ("NVIDIA H200", PAIR, 2, 370),
        ("NVIDIA A100-PCIE-40GB", (("X", "SYS"), ("SYS", "X")), 2, 20),
        ("NVIDIA A10", (("X", "PIX"), ("PIX", "X")), 2, 20),
        ("Tesla V100-SXM2-16GB", (("X", "PHB"), ("PHB", "X")), 2, 11),
    ],
)
def test_the_link_and_the_product_name_the_bandwidth_that_is_known(
    name: str, links: tuple[tuple[str, ...], ...], ranks: int, gigabytes: float
) -> None:
    found = expected_bandwidth(Machine(devices=(name,) * 2, links=links), ranks)

    assert isinstance(found, Expected)
    assert found.bytes_per_s == gigabytes * 1e9
    assert "nccl" in found.source or "prior" in found.source


def test_a_measured_link_comes_before_the_table() -> None:
    found = expected_bandwidth(Machine(devices=A100 * 2, links=PAIR, constants={MEASURED: 5e9}), 2)

    assert found == Expected("NVLink", 5e9, "measured on this machine")


def test_ranks_on_several_machines_use_a_network_whose_rate_must_be_given() -> None:
    machine = Machine(devices=A100 * 2, links=PAIR)

    assert "network_bytes_per_s into Machine.constants" in str(expected_bandwidth(machine, 4))
    found = expected_bandwidth(Machine(devices=A100 * 2, links=PAIR, constants={NETWORK: 25e9}), 4)
    assert found == Expected("network", 22.5e9, "a prior: .9 of the rate of the network cards per GPU")


def test_two_of_three_gpus_that_are_not_alike_are_not_guessed_but_taken_as_recorded() -> None:
    machine = Machine(devices=A100 * 3, links=links_of(MATRIX))

    assert "which of 3 GPUs the 2 ranks use is not known" in str(expected_bandwidth(machine, 2))
    assert [expected_bandwidth(machine, 2, pair).link for pair in ((0, 1), (1, 2))] == ["NVLink", "PCIe"]  # type: ignore[union-attr]


def test_a_gpu_without_a_figure_is_said_so() -> None:
    assert "no figure is known for PCIe of Rare GPU" in str(
        expected_bandwidth(Machine(devices=("Rare GPU",) * 2, links=(("X", "SYS"), ("SYS", "X"))), 2)
    )
    assert "how many ranks communicate is not known" in str(expected_bandwidth(Machine(links=PAIR), None))
