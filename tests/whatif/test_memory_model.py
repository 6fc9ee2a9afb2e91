"""MemoryModel and what rests on it: the largest batch that fits, which modules to checkpoint, memory beside time by a dry run."""

from __future__ import annotations

from typing import Any

import pytest

from perfnb.prediction import MemoryPart, Unknown
from perfnb.run import Run
from perfnb.whatif.dry_run import MemoryEstimate, MemoryModel
from perfnb.whatif.dry_run_checkpoints import checkpoint_candidates
from perfnb.whatif.memory_beside import memory_beside
from perfnb.whatif.memory_fit import LargestBatch, largest_batch, needed_bytes

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own calls
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
WIDTH = 16


def blocks() -> Any:
    """Two blocks; the second layer of each keeps its input for backward."""
    return torch.nn.Sequential(
        *(
            torch.nn.Sequential(torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH))
            for _ in "ab"
        )
    )


def model(config: dict[str, Any] | None = None, *, make: Any = blocks, loss: Any = None, target: str = "cpu") -> MemoryModel:
    return MemoryModel(
        make,
        lambda batch_size: torch.randn(batch_size, WIDTH),
        loss or (lambda own, batch: own(batch).square().mean()),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        config=config or {"batch_size": 8},
        target=target,  # type: ignore[arg-type]
    )


def test_what_was_found_once_is_kept() -> None:
    own = model()

    assert own.estimate() is own.estimate({})
    assert own.estimate({"batch_size": 8}) is own.estimate()


def test_the_largest_batch_is_the_last_whose_high_end_fits() -> None:
    own = model()
    at_40 = own.estimate({"batch_size": 40})
    assert isinstance(at_40, MemoryEstimate)

    found = largest_batch(own, needed_bytes(at_40), margin_share=0.0, multiple_of=8, most=512)

    assert isinstance(found, LargestBatch)
    assert (found.batch_size, found.is_at_least) == (40, False)
    assert found.tried.loc[found.tried["fits"], "batch_size"].max() == 40
    assert found.tried.loc[~found.tried["fits"], "batch_size"].min() == 48


def test_the_search_says_where_it_ended_by_itself_and_where_nothing_fits() -> None:
    own = model()

    all_fit, none_fits = largest_batch(own, 1 << 40, most=4), largest_batch(own, 1)

    assert isinstance(all_fit, LargestBatch)
    assert isinstance(none_fits, LargestBatch)
    assert (all_fit.batch_size, all_fit.is_at_least, none_fits.batch_size) == (4, True, 0)


def test_a_training_that_reads_values_has_no_largest_batch() -> None:
    assert isinstance(largest_batch(model(loss=lambda own, batch: own(batch).sum().item()), 1 << 30), Unknown)
    with pytest.raises(ValueError, match="margin_share"):
        largest_batch(model(), 1 << 30, margin_share=1.0)


def test_checkpointing_a_block_saves_what_its_layers_keep_but_its_result() -> None:
    found = checkpoint_candidates(model(), measured=1)

    assert not isinstance(found, Unknown)
    first = found.set_index("module").loc["0"]
    hidden = 8 * 4 * WIDTH * 4  # a batch of 8, float32
    # kept: what the first layer and GELU give, and the block's own result, which stays
    assert (first["kept_bytes"], first["saved_bytes"]) == (2 * hidden + 8 * WIDTH * 4, 2 * hidden)
    assert first["forward_flops"] == 2 * (2 * 8 * WIDTH * 4 * WIDTH)
    assert found["peak_bytes"].notna().sum() == 1
    assert found["saved_bytes_per_us"].is_monotonic_decreasing


def test_candidates_of_a_training_that_cannot_run_dry_say_why() -> None:
    assert isinstance(checkpoint_candidates(model({"batch_size": 0})), Unknown)
    assert isinstance(checkpoint_candidates(model(loss=lambda own, batch: own(batch).sum().item())), Unknown)
    assert isinstance(checkpoint_candidates(model(loss=lambda _own, _batch: None)), Unknown)
    with pytest.raises(ZeroDivisionError):
        checkpoint_candidates(model(loss=lambda _own, _batch: 1 / 0))


def test_sharding_more_than_the_state_takes_less_and_stage_3_needs_blocks() -> None:
    peaks = []
    for stage in (1, 2, 3):
        found = model({"batch_size": 1, "world_size": 4}).estimate({"zero_stage": stage})
        assert isinstance(found, MemoryEstimate)
        assert any("not measured" in one for one in found.assumptions)
        peaks.append(found.peak_bytes)

    assert max(peaks[1:]) < peaks[0]  # with two blocks stage 3 gathers all of the model at once, so it need not beat stage 2
    single = model({"batch_size": 1, "world_size": 4}, make=lambda: torch.nn.Linear(WIDTH, 2)).estimate({"zero_stage": 3})
    assert isinstance(single, Unknown)
    assert "stage 3 gathers" in single.reason
    assert isinstance(model().estimate({"zero_stage": 1}), Unknown)
    assert isinstance(model().estimate({"gradient_as_bucket_view": 1}), Unknown)


def test_memory_beside_comes_from_the_dry_run_and_its_blocks_from_the_changed_allocator() -> None:
    own = model(target="cuda")

    alone = memory_beside(Run(), {"batch_size": 64}, {"batch_size": 8}, model=own, usable_bytes=1 << 30)
    both = memory_beside(
        Run(), {"batch_size": 64, "expandable_segments": True}, {"batch_size": 8, "expandable_segments": False}, model=own
    )

    assert isinstance(alone, MemoryPart)
    assert isinstance(both, MemoryPart)
    assert (alone.what, alone.verdict, alone.after_bytes) == ("allocated", "may fit", both.after_bytes)
    assert alone.after_bytes > alone.before_bytes
    assert any("simulated allocator" in one for one in both.assumptions)
    unread = model(loss=lambda net, batch: net(batch).sum().item())
    assert isinstance(memory_beside(Run(), {"batch_size": 64}, {"batch_size": 8}, model=unread), Unknown)
