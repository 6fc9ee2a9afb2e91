"""What the objects of a training say of its settings."""

from __future__ import annotations

import pytest

from perfnb.record.seen_config import seen_of_data_parallel, seen_of_optimizer

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


@pytest.mark.parametrize(("dtype", "said"), [("float64", "fp64"), ("bfloat16", "bf16"), ("float32", None)])
def test_the_type_of_all_parameters_is_the_precision_unless_autocast_may_lower_it(dtype: str, said: str | None) -> None:
    layer = torch.nn.Linear(2, 2).to(getattr(torch, dtype))

    assert seen_of_optimizer(torch.optim.SGD(layer.parameters(), lr=0.1)).get("precision") == said


def test_parameters_of_several_types_say_no_precision() -> None:
    mixed = [torch.nn.Parameter(torch.zeros(1, dtype=each)) for each in (torch.float64, torch.float32)]

    assert "precision" not in seen_of_optimizer(torch.optim.SGD(mixed, lr=0.1))


def test_a_module_that_lost_its_names_says_what_is_left() -> None:
    class Odd:
        find_unused_parameters = True

    assert seen_of_data_parallel(Odd(), torch) == {"parallelism": "ddp", "find_unused_parameters": True}
