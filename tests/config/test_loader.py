"""A live DataLoader: a new one is made with other arguments on the same data, the given one is left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from perfnb.apply import apply, preview, undo
from perfnb.config.as_config import as_config
from perfnb.config.mapping import has_knob
from perfnb.errors import ConfigError, NoPlaceError, StaleChange
from perfnb.prediction import Change

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # torch's own view of this machine
]

ARGUMENTS = ("dataset", "num_workers", "prefetch_factor", "pin_memory", "pin_memory_device", "timeout", "worker_init_fn")
ARGUMENTS += ("in_order", "batch_size", "drop_last", "generator", "collate_fn", "persistent_workers", "multiprocessing_context")


def twice(samples: list[int]) -> list[int]:
    return [2 * sample for sample in samples]


def loader(**arguments: Any) -> Any:
    return torch.utils.data.DataLoader(**{"dataset": list(range(10)), "batch_size": 3} | arguments)


def held(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ARGUMENTS}


CHANGES = [
    ({}, Change("num_workers", 0, 2)),
    ({"num_workers": 2}, Change("num_workers", 2, 0)),
    ({"num_workers": 2}, Change("prefetch_factor", 2, 8)),
    ({"num_workers": 2, "prefetch_factor": 8, "persistent_workers": True}, Change("num_workers", 2, 3)),
    ({"num_workers": 2}, Change("persistent_workers", before=False, after=True)),
    ({}, Change("pin_memory", before=False, after=True)),
    ({}, Change("batch_size", 3, 5)),
    ({"num_workers": 1}, Change("in_order", before=True, after=False)),
    ({}, Change("drop_last", before=False, after=True)),
]


@pytest.mark.parametrize(("arguments", "change"), CHANGES)
def test_a_new_loader_has_the_change_and_undo_gives_equal_arguments(arguments: dict[str, Any], change: Change) -> None:
    given = loader(collate_fn=twice, generator=torch.Generator(), timeout=0, **arguments)
    before = held(given)

    after = apply(change, given)
    back = undo(change, after)

    assert getattr(after, change.knob) == change.after
    assert after is not given
    assert held(given) == before == held(back)
    assert back.sampler is after.sampler is given.sampler
    assert type(after) is type(given)


def test_the_new_loader_gives_the_same_batches() -> None:
    given = loader(collate_fn=twice, drop_last=True)

    assert (
        list(apply(Change("pin_memory", before=False, after=True), given)) == list(given) == [[0, 2, 4], [6, 8, 10], [12, 14, 16]]
    )
    assert list(apply(Change("batch_size", 3, 4), given)) == [[0, 2, 4, 6], [8, 10, 12, 14]]


def test_a_shuffled_order_stays_that_of_the_generator() -> None:
    given = loader(shuffle=True, collate_fn=twice, generator=torch.Generator().manual_seed(3))
    expected = list(loader(shuffle=True, collate_fn=twice, generator=torch.Generator().manual_seed(3)))

    assert list(apply(Change("drop_last", before=False, after=True), given)) == expected[:3]


def test_workers_that_go_take_what_only_they_have_but_nothing_that_would_not_come_back() -> None:
    given = loader(num_workers=2, prefetch_factor=8, persistent_workers=True)

    with pytest.raises(ConfigError, match=r"has prefetch_factor=8 and persistent_workers=True, which need workers: .*Change\("):
        apply(Change("num_workers", 2, 0), given)

    changes = (
        Change("num_workers", 2, 0),
        Change("prefetch_factor", 8, None),
        Change("persistent_workers", before=True, after=False),
    )
    after = apply(changes, given)
    assert (after.num_workers, after.prefetch_factor, after.persistent_workers) == (0, None, False)
    assert held(undo(changes, after)) == held(given)


def test_torch_has_the_last_word() -> None:
    with pytest.raises(
        ConfigError, match="DataLoader refuses it: persistent_workers option needs num_workers > 0; nothing was changed"
    ):
        apply(Change("persistent_workers", before=False, after=True), loader())
    with pytest.raises(StaleChange, match="num_workers is 0, but the change starts from 1"):
        apply(Change("num_workers", 1, 2), loader())


class _Stream(torch.utils.data.IterableDataset):  # type: ignore[misc,name-defined,unused-ignore]
    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


def test_a_stream_a_batch_sampler_and_no_batches_at_all() -> None:
    sampler = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(range(10)), 4, drop_last=False)
    stream = torch.utils.data.DataLoader(_Stream(), batch_size=2, collate_fn=twice)
    sampled = torch.utils.data.DataLoader(list(range(10)), batch_sampler=sampler, collate_fn=twice)
    single = torch.utils.data.DataLoader(list(range(3)), batch_size=None)
    change = Change("pin_memory", before=False, after=True)

    assert list(apply(change, stream)) == [[0, 2], [4, 6], [8]]
    assert list(apply(Change("batch_size", 2, 3), stream)) == [[0, 2, 4], [6, 8]]
    assert apply(change, sampled).batch_sampler is sampler
    assert not has_knob(as_config(sampled), "batch_size")
    assert list(apply(change, single)) == [0, 1, 2]
    with pytest.raises(NoPlaceError, match="the DataLoader has no place for batch_size = 8"):
        apply(Change("batch_size", None, 8), sampled)


def test_a_loader_of_another_class_is_made_anew_by_its_owner() -> None:
    class Own(torch.utils.data.DataLoader):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self, path: str) -> None:
            super().__init__([path])

    class Same(torch.utils.data.DataLoader):  # type: ignore[misc,name-defined,unused-ignore]
        pass

    with pytest.raises(NoPlaceError, match="is a Own, whose own arguments are not known") as caught:
        apply(Change("num_workers", 0, 2), Own("x"))
    assert caught.value.snippets == ("num_workers=2",)
    assert type(apply(Change("num_workers", 0, 2), Same([1]))) is Same


def test_the_diff_shows_the_call() -> None:
    shown = preview(Change("num_workers", 2, 4), loader(collate_fn=twice, num_workers=2))

    assert [line for line in shown.diff.splitlines() if line[:1] in "+-"] == [
        "--- config before",
        "+++ config after",
        "-    num_workers=2,",
        "+    num_workers=4,",
    ]
    assert "    dataset=<list>,\n" in shown.after.text
    assert "    collate_fn=<twice>,\n" in shown.after.text


def test_a_config_is_changed_without_importing_torch() -> None:
    program = (
        "import sys; from perfnb import apply, as_config, Change; apply(Change('num_workers', 0, 2), {'num_workers': 0}); "
        "print(sorted({'torch', 'omegaconf', 'ruamel', 'tomlkit', 'transformers'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
