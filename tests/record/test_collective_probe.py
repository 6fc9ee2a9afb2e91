"""A probe times collective calls on the group of the job, and what it returns becomes constants of the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perfnb.errors import RecordingError
from perfnb.prediction import Unknown
from perfnb.record.collective_probe import probe_collectives
from perfnb.run import Run
from perfnb.whatif.collective_link import Link, link_of, with_link_times

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

SIZES = (64, 512, 4096)


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone: what is timed is the call, not a link."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_every_size_of_every_kind_has_a_time() -> None:
    kinds = ("all_reduce", "all_gather", "reduce_scatter")

    rows = probe_collectives(sizes=SIZES, dtypes=("float32", "float16"), collectives=kinds, repeats=2)

    calls = [row for row in rows if row["collective"] != "cast"]
    assert [(row["dtype"], row["collective"], row["bytes"]) for row in calls] == [
        (dtype, kind, size) for dtype in ("float32", "float16") for kind in kinds for size in SIZES
    ]
    assert all(row["time_us"] > 0 and row["backend"] == "gloo" and row["ranks"] == 1 for row in rows)
    assert [(row["dtype"], row["bytes"]) for row in rows if row["collective"] == "cast"] == [("float16", 4096)]


@pytest.mark.usefixtures("group")
def test_a_type_that_the_backend_does_not_add_up_is_left_out() -> None:
    rows = probe_collectives(sizes=SIZES, dtypes=("int16",), repeats=1)

    assert [row["collective"] for row in rows] == ["cast"]


@pytest.mark.usefixtures("group")
def test_a_collective_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(RecordingError, match="'broadcast' cannot be probed: there are all_reduce, all_gather, reduce_scatter"):
        probe_collectives(collectives=("broadcast",))


def test_without_a_group_the_probe_says_what_to_do() -> None:
    with pytest.raises(RecordingError, match="call probe_collectives"):
        probe_collectives()


def rows_of(alpha_us: float, bytes_per_us: float) -> list[dict[str, object]]:
    return [
        {"backend": "gloo", "collective": "all_reduce", "dtype": "float32", "ranks": 4, "bytes": size}
        | {"time_us": alpha_us + 1.5 * size / bytes_per_us}
        for size in SIZES
    ]


def test_times_on_a_line_become_its_two_constants() -> None:
    link = link_of(with_link_times(Run(world_size=4), rows_of(100.0, 8.0)), "gloo")

    assert isinstance(link, Link)
    assert link.constants["collective.gloo.all_reduce.float32.4.alpha_us"] == pytest.approx(100.0)
    assert link.constants["collective.gloo.all_reduce.float32.4.bytes_per_us"] == pytest.approx(8.0)
    times = link.all_reduce()
    assert not isinstance(times, Unknown)
    assert times(800.0) == pytest.approx(250.0)


def test_sizes_too_near_to_one_another_tell_nothing() -> None:
    assert not with_link_times(Run(world_size=4), rows_of(100.0, 8.0)[:2]).machine.constants
