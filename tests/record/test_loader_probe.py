"""A probe of a dataset: what it times, that it changes nothing, when it stops, and what it refuses."""

from __future__ import annotations

import math
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfnb import probe_dataset
from perfnb.errors import RecordingError
from perfnb.record import loader_probe, loader_probe_workers
from perfnb.record.loader_probe_quiet import Load, LoadMeter, wait_until_quiet
from perfnb.record.loader_probe_result import LoaderProbe, NotProbed
from perfnb.record.loader_probe_samples import FEWEST_BATCHES, Timed, alike, bytes_of, half_width_share, tensors_of, time_batches
from perfnb.record.loader_probe_states import kept_states
from perfnb.record.loader_probe_waits import after_wait
from perfnb.record.loader_probe_workers import Stub, WorkerCosts, fresh, worker_costs
from perfnb.run import Run

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

QUICK: dict[str, Any] = {"quiet_s": 0.0, "only_when_quiet": False, "progress": False, "longest_s": 5.0}


class Numbers(torch.utils.data.Dataset[Any]):
    """Samples that say which they are and remember that they were asked for."""

    def __init__(self, length: int = 400) -> None:
        self.length, self.asked = length, list[int]()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return torch.full((3, 4), float(index)), index


class AtOnce(Numbers):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class Augmented(Numbers):
    def __getitem__(self, index: int) -> Any:
        super().__getitem__(index)
        return torch.rand(4) + random.random() + np.random.rand()  # noqa: NPY002 - what users' datasets call


class Stream(torch.utils.data.IterableDataset[Any]):
    def __init__(self, length: int = 101) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        return iter([torch.zeros(2)] * self.length)


class Steps:
    """A clock that goes on by a microsecond whenever it is read, and further when told."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


def loader(dataset: Any, **options: Any) -> Any:
    return torch.utils.data.DataLoader(dataset, **{"batch_size": 4, **options})


def timed(dataset: Any, longest_s: float = 1.0, half_width: float = 0.03, clock: Any = None, **options: Any) -> Timed:
    return time_batches(
        loader(dataset, **options), longest_s=longest_s, half_width=half_width, told=lambda _found: None, clock=clock or Steps()
    )


def test_a_probe_times_samples_and_what_a_worker_costs_and_changes_no_random_state() -> None:
    data = Augmented()
    generator = torch.Generator().manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), generator.get_state()  # noqa: NPY002
    threads = torch.get_num_threads()

    probe = probe_dataset(loader(data, shuffle=True, generator=generator), **QUICK)

    assert isinstance(probe, LoaderProbe)
    assert probe
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.equal(generator.get_state(), states[3])
    assert torch.get_num_threads() == threads
    assert set(probe.samples["part"]) == {"sample", "collate"}
    assert len(probe.samples) == 5 * probe.samples["batch"].nunique()
    assert probe.samples["bytes"].tolist()[:5] == [16, 16, 16, 16, 64]  # four floats a sample
    for name in ("get_us", "put_us", "fork_us", "init_us"):
        value, low, high = (probe.constants[f"loader.{name}{end}"] for end in ("", ".low", ".high"))
        assert low <= value <= high
    assert probe.constants["loader.is_random"] == 1.0
    assert probe.constants["loader.set_bytes"] == 400 * 16
    assert probe.constants["loader.batch_size"] == 4
    assert probe.constants["loader.tensors"] == 1
    assert probe.constants["loader.worker_bytes"] > 0
    assert "ms a batch" in repr(probe)


def test_samples_come_as_the_sampler_asks_and_none_twice() -> None:
    data = Numbers(100)

    found = timed(data, half_width=0.0, sampler=torch.utils.data.SequentialSampler(data))

    assert data.asked == list(range(100))
    assert len(found.batch_us) == 24  # of 25 batches the first warms up
    assert found.stopped == "one epoch"
    assert (found.last_index, found.last[1].tolist()) == (96, [96, 97, 98, 99])


def test_batches_with_a_sample_that_was_read_before_are_left_out() -> None:
    data = Numbers(40)

    found = timed(data, sampler=[*range(20), *range(10, 40)])

    assert found.repeated == 3  # 20..21 follow 18..19: batches 5, 6 and 7 hold 10 to 21
    assert len(data.asked) == len(set(data.asked))


def test_it_stops_when_the_mean_is_known() -> None:
    found = timed(Numbers(4000))

    assert len(found.batch_us) == FEWEST_BATCHES  # on this clock every batch takes as long as any other
    assert found.stopped == "the mean is known to 3%"
    assert found.half_width_share == 0.0


def test_it_stops_when_the_time_is_up() -> None:
    found = timed(Numbers(4000), longest_s=100e-6, half_width=0.0)

    assert found.stopped == "0.0001 s are over"
    assert 1 < len(found.batch_us) < 20  # ten readings of the clock for a batch, and one to ask


def test_a_batch_takes_what_its_samples_and_its_collating_take() -> None:
    found = timed(Numbers(400))

    assert found.batch_us[0] == 5.0  # four samples and a collate, one reading later each
    assert [row[:3] for row in found.rows[:5]] == [(0, part, 1.0) for part in ("sample",) * 4 + ("collate",)]


def test_batches_that_a_dataset_fetches_at_once_are_one_row() -> None:
    found = timed(AtOnce(400))

    assert [row[1] for row in found.rows[:2]] == ["samples", "collate"]
    assert found.rows[0][4] == 4 * (3 * 4 * 4)


def test_without_batching_every_sample_is_a_batch() -> None:
    found = timed(Numbers(40), batch_size=None, half_width=0.0)

    assert len(found.batch_us) == 39
    assert found.rows[0][1] == "samples"


def test_indices_that_are_lists_are_told_apart() -> None:
    class Pairs(Numbers):
        def __getitem__(self, index: Any) -> Any:
            return torch.zeros(2)

    found = timed(Pairs(), batch_size=None, sampler=[[1, 2], [3, 4], [1, 2], [5, 6]], half_width=0.0)

    assert (len(found.batch_us), found.repeated) == (2, 1)


@pytest.mark.parametrize(("options", "batches"), [({}, 24), ({"batch_size": None}, 100)])
def test_an_iterable_dataset_is_read_to_its_last_full_batch(options: dict[str, Any], batches: int) -> None:
    assert len(timed(Stream(), half_width=0.0, **options).batch_us) == batches  # 25 batches and one sample; 101 batches


def test_threads_inside_samples_count_as_computing() -> None:
    assert Timed(thread_us=100.0, process_us=150.0).cpu_factor == 1.5
    assert Timed(thread_us=100.0, process_us=105.0).cpu_factor == 1.0
    assert Timed().cpu_factor == 1.0


def test_the_half_width_of_one_batch_is_not_known() -> None:
    assert math.isnan(half_width_share([5.0]))
    assert math.isnan(half_width_share([0.0, 0.0]))


def test_an_iterable_dataset_needs_a_word_on_its_workers() -> None:
    refused = probe_dataset(Stream(), batch_size=4, **QUICK)

    assert isinstance(refused, NotProbed)
    assert not refused
    assert "sharded=True" in refused.reason
    assert refused.attach(Run()).missing["loader_samples"] == refused.reason


def test_an_iterable_dataset_that_is_sharded_is_probed() -> None:
    probe = probe_dataset(Stream(), batch_size=4, sharded=True, **QUICK)

    assert isinstance(probe, LoaderProbe)
    assert probe.constants["loader.is_iterable"] == 1.0
    assert "loader.is_random" not in probe.constants


def test_a_dataset_of_one_batch_tells_nothing() -> None:
    refused = probe_dataset(Numbers(4), batch_size=4, **QUICK)

    assert isinstance(refused, NotProbed)
    assert "fewer than two batches" in refused.reason


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (Numbers(), {}, "pass the DataLoader, or batch_size="),
        (Numbers(), {"batch_size": 0}, "batch_size="),
        (7, {"batch_size": 4}, "not int"),
        (loader(Numbers()), {"batch_size": 4}, "leave it out"),
        (loader(Numbers()), {"longest_s": 0.0}, "longest_s"),
        (loader(Numbers()), {"half_width": math.nan}, "half_width"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(data: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordingError, match=said):
        probe_dataset(data, **{**QUICK, **options})


def test_an_error_of_the_dataset_is_the_users_own_and_states_are_put_back() -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> Any:
            torch.rand(1)
            if index >= 20:
                message = "no such picture"
                raise KeyError(message)
            return torch.zeros(1)

    before = torch.get_rng_state()

    with pytest.raises(KeyError, match="no such picture"):
        probe_dataset(loader(Broken()), **QUICK)

    assert torch.equal(torch.get_rng_state(), before)


def test_an_interrupt_puts_the_states_back() -> None:
    class Interrupted(Numbers):
        def __getitem__(self, index: int) -> Any:
            raise KeyboardInterrupt

    threads = torch.get_num_threads()

    with pytest.raises(KeyboardInterrupt):
        probe_dataset(loader(Interrupted()), **QUICK)

    assert torch.get_num_threads() == threads


def test_a_batch_that_no_worker_can_send_leaves_a_note() -> None:
    class Odd(Numbers):
        def __getitem__(self, index: int) -> Any:
            return lambda: index

    probe = probe_dataset(loader(Odd(), collate_fn=list), **QUICK)

    assert isinstance(probe, LoaderProbe)
    assert "loader.get_us" not in probe.constants
    assert "no worker could be timed" in probe.notes[0]
    assert any("no worker could be timed" in note for note in probe.attach(Run()).notes)


def test_attaching_adds_the_table_and_the_constants_to_a_new_run() -> None:
    probe = probe_dataset(loader(Numbers(40)), **QUICK)
    run = Run()

    attached = probe.attach(run)
    moved = probe.attach(attached, data_root="/scratch")
    again = probe.attach(moved)

    assert run.loader_samples.empty
    assert set(attached.loader_samples["source"]) == {"probe"}
    assert attached.machine.constants["loader.tensors"] == 2
    assert "loader_samples" in attached.signals
    assert set(moved.loader_samples["source"]) == {"probe", "data_root=/scratch"}
    assert len(again.loader_samples) == len(moved.loader_samples)
    with pytest.raises(TypeError, match="one knob"):
        probe.attach(run, data_root="/scratch", cache_samples="memory")


def test_a_busy_machine_is_waited_for_and_then_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadMeter, "read", lambda _meter: Load(0.5, 1.0))

    refused = probe_dataset(loader(Numbers()), quiet_s=0.0, progress=False)

    assert isinstance(refused, NotProbed)
    assert "CPU pressure 50% (at most 20%), other processes on 1.00 cores" in refused.reason


def test_waiting_ends_with_the_first_quiet_window() -> None:
    loads = iter([Load(math.nan, 0.0), Load(0.5, 0.0), Load(0.1, 0.3), Load(math.nan, 0.2), Load(0.9, 0.9)])
    waited: list[float] = []

    class Meter:
        read = staticmethod(lambda: next(loads))

    found = wait_until_quiet(60.0, Meter(), sleep=lambda _s: None, waited=waited.append)  # type: ignore[arg-type]

    assert found.foreign_cores == 0.2
    assert waited == [0.5, 0.5, 0.5]
    assert "not told" in str(found)


def test_the_load_by_others_is_what_the_host_did_beyond_this_process(tmp_path: Any) -> None:
    (tmp_path / "proc/pressure").mkdir(parents=True)
    stat, pressure = tmp_path / "proc/stat", tmp_path / "proc/pressure/cpu"
    stat.write_bytes(b"cpu  100 0 0 1000 0 0 0 0 0 0\n")
    pressure.write_bytes(b"some avg10=12.50 avg60=0 avg300=0 total=1\n")
    clock = iter([0.0, 1000.0])
    meter = LoadMeter(tmp_path, lambda: next(clock))

    stat.write_bytes(b"cpu  200100 0 0 1000 0 0 0 0 0 0\n")  # 2,000 s of busy cores in 1,000 s
    found = meter.read()

    assert found.pressure_share == 0.125
    assert 0.0 <= found.foreign_cores <= 2.0


def test_a_host_without_proc_is_asked_otherwise(tmp_path: Any) -> None:
    found = LoadMeter(tmp_path).read()

    assert math.isnan(found.pressure_share)
    assert found.foreign_cores >= 0.0


def test_copies_of_a_batch_share_no_memory_with_it() -> None:
    batch = {"x": torch.zeros(3), "y": [np.zeros(2), ("a", 1)], "z": {1, 2}}

    copied = fresh(batch, is_shared=True)

    assert copied["x"].data_ptr() != batch["x"].data_ptr()
    assert copied["y"][0] is not batch["y"][0]
    assert copied["y"][1] == ("a", 1)
    assert copied["z"] == {1, 2}
    assert len(Stub(batch, 3, is_shared=False)) == 3


def test_bytes_are_counted_inside_of_objects_too() -> None:
    class Holder:
        def __init__(self) -> None:
            self.picture = torch.zeros(5)

    assert bytes_of([Holder(), np.zeros(2)]) == 5 * 4 + 2 * 8
    assert tensors_of("text") == []


def test_samples_are_alike_by_their_numbers() -> None:
    assert alike("a", "a")
    assert not alike("a", "b")
    assert not alike(torch.zeros(2), torch.zeros(3))
    assert not alike(torch.zeros(2), torch.tensor([0.0, 1.0]))


def test_little_shared_memory_means_fewer_batches_ahead() -> None:
    found = worker_costs(loader(Numbers()), torch.zeros(1000), shared_bytes=4 * 3 * 4000.0, told=lambda: None)

    assert found["get_us.n"] == 1.0  # three lie ready; from the third on they count
    assert found["batch_bytes"] == 4000


def test_the_costs_are_a_median_with_its_percentiles() -> None:
    costs = WorkerCosts()

    costs.add("get_us", [1.0, 2.0, 3.0, 4.0, 5.0])

    assert costs == {"get_us": 3.0, "get_us.low": 1.4, "get_us.high": 4.6, "get_us.n": 5.0}


def test_a_generator_of_the_sampler_is_put_back_too() -> None:
    sampler = torch.utils.data.RandomSampler(range(8), generator=torch.Generator().manual_seed(1))
    before = sampler.generator.get_state()

    with kept_states(None, sampler):
        list(sampler)
        assert torch.get_num_threads() == 1
        assert not torch.is_grad_enabled()

    assert torch.equal(sampler.generator.get_state(), before)


def test_waiting_is_told_from_computing() -> None:
    class Sleepy(Numbers):
        def __getitem__(self, index: int) -> Any:
            time.sleep(0.003)
            return torch.zeros(1)

    found = time_batches(loader(Sleepy(16)), longest_s=5.0, half_width=0.0, told=lambda _found: None)

    rows = [row for row in found.rows if row[1] == "sample"]
    assert all(row[2] >= 3000 for row in rows)
    assert sum(row[3] for row in rows) < 0.5 * sum(row[2] for row in rows)


class OnTheGpu:
    """Stands for a tensor of a GPU, which this machine may not have."""

    is_cuda, nbytes, shape = True, 8, (1,)

    def untyped_storage(self) -> None:
        """Tensors have one."""


class Pinnable:
    is_cuda, pinned = False, 0

    def untyped_storage(self) -> None:
        """Tensors have one."""

    def pin_memory(self) -> None:
        Pinnable.pinned += 1


def test_what_this_system_does_not_limit_or_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def __getitem__(self, index: int) -> Any:
            return torch.zeros(1)

    monkeypatch.setattr(loader_probe, "SHARED_MEMORY", Path("/no/such/place"))
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(loader_probe, "storage_and_calls", lambda _text: ())

    probe = probe_dataset(loader(Endless(), sampler=[*range(20), *range(10)]), **QUICK)

    assert isinstance(probe, LoaderProbe)
    assert not {f"loader.{name}" for name in ("shared_memory_bytes", "descriptors", "set_bytes", "storage_bytes")} & set(
        probe.constants
    )
    assert "3 batches held samples that were read before" in probe.notes[0]


def test_samples_on_the_gpu_are_not_handed_to_a_worker() -> None:
    class Device(Numbers):
        def __getitem__(self, index: int) -> Any:
            return OnTheGpu()

    probe = probe_dataset(loader(Device(8), batch_size=None), **QUICK)

    assert isinstance(probe, LoaderProbe)
    assert probe.constants["loader.on_device"] == 1.0
    assert "on the GPU" in probe.notes[0]


def test_in_a_worker_copies_are_made_in_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: "a worker")

    copied = fresh(torch.arange(6).reshape(2, 3), is_shared=True)

    assert copied.is_shared()
    assert copied.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert fresh(torch.empty(0), is_shared=True).numel() == 0


def test_pinning_is_timed_where_there_is_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loader_probe_workers._pin_seconds([Pinnable()]) == []

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    assert len(loader_probe_workers._pin_seconds([Pinnable()])) == Pinnable.pinned - 1  # the first one warms up


def test_a_queue_that_does_not_tell_its_length_is_given_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(loader_probe_workers.time, "sleep", slept.append)

    loader_probe_workers._wait_for(object(), 8)
    loader_probe_workers._stop(object())

    assert sum(slept) == pytest.approx(2.0)
    assert loader_probe_workers._worker_bytes(object()) == {}


def test_a_worker_that_dies_at_once_is_stopped_and_its_error_passed_on() -> None:
    with pytest.raises(RuntimeError, match=r"worker|Broken"):
        loader_probe_workers._started(loader(Numbers()), Stub(Breaking(), 3, is_shared=False), 2)


class Breaking:
    def __deepcopy__(self, _memo: Any) -> Any:
        message = "Broken: it cannot be copied"
        raise RuntimeError(message)


def test_work_after_waits_is_timed_in_turn_with_work_without() -> None:
    slept: list[float] = []

    found = after_wait(torch, 70_000.0, sleep=slept.append)

    assert slept == [0.05] * 12  # longer waits are taken to cost no more
    assert found["after_wait_us"] == 50_000.0
    assert 0.0 < found["after_wait_ratio.low"] <= found["after_wait_ratio"] <= found["after_wait_ratio.high"]
    assert found["after_wait_ratio.n"] == 12
    assert after_wait(torch, 999.0) == after_wait(torch, math.nan) == {}
