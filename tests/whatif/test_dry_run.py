"""The dry run: every byte of a small network worked by hand, equal to a real run; what breaks it says what to pass instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from perfnb.prediction import Unknown
from perfnb.whatif.dry_run import MeasuredPeak, MemoryPrediction, predict_memory
from perfnb.whatif.dry_run_estimate import NOT_MODELLED

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own calls
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

PARAMETERS = 3 * 2 * 4 + 3 * 4  # float32 weights of 2 -> 3 and 3 -> 1
INPUT, HIDDEN, OUTPUT, LOSS = 4 * 2 * 4, 4 * 3 * 4, 4 * 1 * 4, 4  # a batch of 4


def network() -> Any:
    """Two layers without biases."""
    return torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.ReLU(), torch.nn.Linear(3, 1, bias=False))


def rows(batch_size: int) -> Any:
    """A batch of pairs."""
    return torch.randn(batch_size, 2)


def mean(model: Any, batch: Any) -> Any:
    """A loss."""
    return model(batch).mean()


def plain(parameters: Any) -> Any:
    """An optimizer without state."""
    return torch.optim.SGD(parameters, lr=0.1)


def predicted(
    changes: dict[str, Any] | None = None,
    *,
    model: Callable[[], Any] = network,
    batch: Callable[..., Any] = rows,
    loss: Callable[[Any, Any], Any] = mean,
    optimizer: Callable[[Any], Any] = plain,
    config: dict[str, Any] | None = None,
    **how: Any,
) -> MemoryPrediction | Unknown:
    how.setdefault("target", "cpu")
    return predict_memory(model, batch, loss, optimizer, changes, config=config or {"batch_size": 4}, **how)


def known(found: MemoryPrediction | Unknown) -> MemoryPrediction:
    assert isinstance(found, MemoryPrediction), found
    return found


def unknown(found: MemoryPrediction | Unknown) -> Unknown:
    assert isinstance(found, Unknown)
    return found


def bytes_of(prediction: MemoryPrediction) -> dict[str, int]:
    phases = prediction.after.phases
    return dict(zip(phases["phase"], phases["peak_bytes"].astype(int), strict=True))


def test_every_phase_of_a_network_of_two_layers_is_exact_to_the_byte() -> None:
    found = known(predicted())

    # backward: the loss and its gradient, the gradient of the last weights, and at the activation's backward what it saved, what
    # comes in and what goes out
    backward = PARAMETERS + INPUT + 2 * LOSS + 12 + 3 * HIDDEN
    assert bytes_of(found) == {
        "init": PARAMETERS,
        "data": PARAMETERS + INPUT,
        "forward": PARAMETERS + INPUT + 2 * HIDDEN,  # before and after the activation
        "backward": backward,
        "optimizer": 2 * PARAMETERS,
    }
    assert (found.before.peak_bytes, found.before.peak_phase, found.before.level) == (backward, "backward", "C")
    assert (found.before.low_bytes, found.before.high_bytes) == (backward, round(1.05 * backward) + (64 << 20))


def test_the_events_up_to_the_loss_are_those_worked_by_hand() -> None:
    run = known(predicted()).before.run

    assert run is not None
    first = run.allocations.iloc[:9]
    assert first["bytes"].to_list() == [24, 12, INPUT, HIDDEN, HIDDEN, -HIDDEN, OUTPUT, LOSS, -OUTPUT]
    assert first["phase"].to_list() == ["init"] * 2 + ["data"] + ["forward"] * 6
    assert first["category"].to_list() == [
        *("parameter", "parameter", "input", "temporary", "activation", "temporary", "temporary", "activation", "temporary"),
    ]


def test_what_holds_the_peak_sums_to_it() -> None:
    held = known(predicted()).before.held

    by = held.groupby("category")["bytes"].sum().to_dict()
    assert by == {
        "parameter": PARAMETERS,
        "input": INPUT,
        "activation": HIDDEN + LOSS,
        "gradient": 12,
        "temporary": 2 * HIDDEN + LOSS,
    }
    assert held["share"].sum() == pytest.approx(1.0)


def test_real_steps_on_the_cpu_have_the_same_peaks_to_the_byte() -> None:
    def reads_a_value(model: Any, batch: Any) -> Any:
        loss = mean(model, batch)
        assert float(loss) < 1e9
        return loss

    dry = known(predicted(config={"batch_size": 2}))
    real = known(predicted(config={"batch_size": 2}, loss=reads_a_value, allow_real_run=True))

    assert bytes_of(real) == bytes_of(dry)
    assert real.before.level == "B"
    assert "a value is read" in " ".join(real.before.assumptions)


def test_state_of_an_optimizer_is_there_from_the_second_step_on() -> None:
    found = known(predicted({"optimizer": "adamw"}))

    data = bytes_of(found)["data"]
    assert data == PARAMETERS + INPUT + 2 * PARAMETERS + 2 * 4  # two moments, and a step count of each of two tensors


def test_changes_are_predicted_beside_what_is_now() -> None:
    found = known(predicted({"batch_size": 8}))

    assert found.before.peak_bytes - PARAMETERS - 12 - 2 * LOSS == (found.after.peak_bytes - PARAMETERS - 12 - 2 * LOSS) / 2
    assert found.saved_bytes < 0


def test_for_cuda_blocks_are_whole_and_the_numbers_say_that_no_gpu_has_confirmed_them() -> None:
    found = known(predicted(target="cuda")).before

    assert found.run is not None
    assert set(found.run.allocations["bytes"].abs()) == {512}
    assert found.reserved_bytes == 2 << 20
    assert any("not validated on a GPU" in sentence for sentence in found.assumptions)


def test_a_measured_peak_is_met_and_scales_with_the_batch() -> None:
    alone = known(predicted()).before.peak_bytes
    points = [MeasuredPeak(4, alone + 100)]

    found = known(predicted({"batch_size": 8}, measured=points))

    assert found.before.peak_bytes == alone + 100
    assert found.after.peak_bytes == known(predicted({"batch_size": 8})).after.peak_bytes + 200
    assert found.after.level == "B"
    assert found.after.held.set_index("category").loc[NOT_MODELLED, "bytes"] == 200
    assert int(found.after.held["bytes"].sum()) == found.after.peak_bytes


def test_checkpointing_recomputes_the_repeated_blocks_and_saves_memory() -> None:
    def blocks() -> Any:
        parts = [torch.nn.Sequential(torch.nn.Linear(32, 128), torch.nn.Tanh(), torch.nn.Linear(128, 32)) for _ in range(4)]
        return torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Sequential(*parts))

    full = known(predicted({"activation_checkpointing": "full"}, model=blocks, config={"batch_size": 256}))
    one = known(predicted({"activation_checkpointing": ("1.0",)}, model=blocks, config={"batch_size": 256}))

    inner = 256 * 128 * 4  # one inner activation of one block
    assert full.saved_bytes > 2 * inner
    assert 0 < one.saved_bytes < full.saved_bytes


def test_accumulation_holds_gradients_while_the_next_batch_goes_forward() -> None:
    found = known(predicted({"gradient_accumulation_steps": 2}))

    assert bytes_of(found)["data"] == 2 * PARAMETERS + INPUT


def test_a_model_that_exists_already_is_left_as_it_is() -> None:
    model = network()
    before = [one.clone() for one in model.parameters()]

    found = known(predicted(model=lambda: model))

    assert bytes_of(found) == bytes_of(known(predicted()))
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert all(one.grad is None for one in model.parameters())


def test_weights_are_never_allocated() -> None:
    found = known(predicted(model=lambda: torch.nn.Linear(2, 1 << 40, bias=False), config={"batch_size": 1}))

    assert found.before.peak_bytes > 8 << 40


def test_a_convolution_lowers_the_level_and_names_itself() -> None:
    found = known(
        predicted(model=lambda: torch.nn.Conv2d(1, 2, 3), batch=lambda batch_size: torch.randn(batch_size, 1, 8, 8))
    ).before

    assert found.level == "D"
    assert found.unmodelled == ("aten::convolution", "aten::convolution_backward")
    assert found.verdict(10) == "does not fit"
    assert found.verdict(found.peak_bytes) == "may run out of memory"
    assert found.verdict(10**9) == "may fit"


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_recurrent_layer_needs_a_measured_peak(target: str) -> None:
    def loss(model: Any, batch: Any) -> Any:
        return model(batch)[0].mean()

    how: dict[str, Any] = {"model": lambda: torch.nn.LSTM(2, 3), "loss": loss, "target": target}
    refused = unknown(predicted(**how))
    helped = known(predicted(measured=[MeasuredPeak(4, 5000)], **how))

    assert "nothing is known of the memory of" in refused.reason
    assert "one measured peak" in refused.needs
    assert (helped.before.peak_bytes, helped.before.level) == (5000, "B")


def _reads(model: Any, batch: Any) -> Any:
    loss = mean(model, batch)
    return loss * 2 if loss > 3 else loss


OUTSIDE = torch.ones(1)
BREAKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "item": ({"loss": lambda m, b: mean(m, b) * mean(m, b).item()}, "a value is read", "move what only logs out"),
    "if": ({"loss": _reads}, "test_dry_run.py:", "work on tensors"),
    "numpy": ({"loss": lambda m, b: mean(m, b) * float(b.numpy().sum())}, ".numpy()", "work on tensors"),
    "mask": ({"loss": lambda m, b: m(b[b[:, 0] > 0]).mean()}, "a shape depends on values", "torch.where"),
    "half": ({"model": lambda: network().to(torch.bfloat16)}, "dtype is changed", "pure_bf16"),
    "adafactor": ({"optimizer": torch.optim.Adafactor}, "Adafactor cannot be stepped", "AdamW"),
    "lbfgs": ({"optimizer": torch.optim.LBFGS}, "LBFGS cannot be stepped", "AdamW"),
    "cuda": ({"model": lambda: network().cuda()}, "moved to another device", "without .cuda()"),
    "no loss": ({"loss": lambda *_: None}, "loss_fn returned NoneType", "tensor with one value"),
    "losses": ({"loss": lambda m, b: m(b)}, "a tensor of shape (4, 1)", "tensor with one value"),
    "no optimizer": ({"optimizer": lambda *_: None}, "optimizer_fn returned NoneType", "torch.optim.AdamW"),
    "lazy": ({"model": lambda: torch.nn.LazyLinear(3)}, "a lazy layer", "torch.nn.Linear"),
    "compiled": ({"model": lambda: torch.compile(network())}, "the model is compiled", "without torch.compile"),
    "outside": ({"loss": lambda m, b: (m(b) + OUTSIDE).mean()}, "from outside of the functions", "batch_fn the batch"),
    "no blocks": ({"config": {"batch_size": 4, "activation_checkpointing": "full"}}, "no list of blocks", "names of modules"),
    "no module": ({"config": {"batch_size": 4, "activation_checkpointing": ["x"]}}, "no module x", "such as 0, 1, 2"),
    "no fused": (
        {"config": {"batch_size": 4, "optimizer": "rprop", "optimizer_implementation": "fused"}},
        "no fused form",
        "loop",
    ),
    "no batch": ({"config": {"precision": "bf16"}}, "batch size is not given", "batch_size"),
    "knob": ({"config": {"batch_size": 4, "workers": 2}}, "no dry run knows the knob workers", "batch_size"),
    "precision": ({"config": {"batch_size": 4, "precision": "int4"}}, "precision is 'int4'", "pure_bf16"),
    "optimizer": ({"config": {"batch_size": 4, "optimizer": "lion"}}, "cannot make the optimizer 'lion'", "optimizer_fn"),
    "zero": ({"config": {"batch_size": 0}}, "batch_size is 0", "1 or more"),
    "no ranks": ({"config": {"batch_size": 4, "zero_stage": 1}}, "among how many ranks", "world_size"),
    "made already": ({"model": torch.nn.Linear(2, 1)}, "model_fn is a model (Linear)", "lambda: Model"),
    "peak too low": ({"measured": [MeasuredPeak(4, 10)]}, "a peak of 10 B cannot be", "max_memory_allocated"),
    "peak of nothing": ({"measured": [MeasuredPeak(0, 5000)]}, "at a batch of 0", "1 or more"),
    "peak of what breaks": ({"measured": [MeasuredPeak(4, 5000)], "loss": _reads}, "a value is read", "allow_real_run"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_a_dry_run_says_what_to_pass_instead(name: str) -> None:
    arguments, reason, needs = BREAKS[name]
    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("here a model can be moved to CUDA")

    found = unknown(predicted(**arguments))

    assert reason in found.reason
    assert needs in found.needs


def test_an_error_of_the_training_itself_is_raised_with_its_phase() -> None:
    with pytest.raises(RuntimeError, match=r"reduction dim|shapes cannot be multiplied") as caught:
        predicted(batch=lambda batch_size: torch.randn(batch_size, 5))

    assert "phase forward" in caught.value.__notes__[0]


def test_a_batch_that_needs_values_is_made_for_real() -> None:
    def sorted_rows(batch_size: int) -> Any:
        found = torch.randn(batch_size, 2)
        return found if found.sum().item() < 1e9 else -found

    found = known(predicted(batch=sorted_rows))

    assert found.before.peak_bytes == known(predicted()).before.peak_bytes
    assert any("run for real" in sentence for sentence in found.before.assumptions)


def test_layers_that_copy_themselves_are_copied() -> None:
    layer = lambda: torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)  # noqa: E731

    found = known(
        predicted(
            model=layer, batch=lambda size, length: torch.randn(size, length, 8), config={"batch_size": 2, "sequence_length": 5}
        )
    )

    assert found.before.peak_bytes > 0


def test_default_dtype_and_random_state_are_as_before() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    known(predicted(config={"batch_size": 4, "precision": "pure_bf16"}))

    assert torch.get_default_dtype() is torch.float32
    assert torch.equal(torch.rand(1), expected)


def test_importing_the_dry_run_loads_no_torch() -> None:
    code = "import sys, perfnb.whatif.dry_run; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
