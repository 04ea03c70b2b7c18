"""Weights in NF4: their size, their error, and adapters on them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from igla.adapt import AdapterConfig, Target, attach, freeze, merge
from igla.adapt.quantized import QuantizedLinear, quantize, restore
from igla.data.batch import PackedBatch
from igla.errors import UserError
from igla.model.encoder import SequenceClassifier
from igla.model.parts import Linear

pytest.importorskip("bitsandbytes", reason="the extra igla[qlora] is not installed")
INNER = [f"encoder.layers.{layer}.{name}" for layer in (0, 1) for name in ("qkv", "out", "up")]


def test_a_parameter_takes_4_127_bits() -> None:
    layer = QuantizedLinear(Linear(512, 1024))
    assert layer.stored_bits / (512 * 1024) == 4 + 8 / 64 + 32 / (64 * 256)
    assert round(layer.stored_bits / (512 * 1024), 3) == 4.127


def test_the_error_is_that_of_nf4() -> None:
    """Of standard normal weights in blocks of 64: sixteen levels leave about 0.073."""
    torch.manual_seed(0)
    plain = Linear(1024, 1024)
    nn.init.normal_(plain.weight)
    error = (QuantizedLinear(plain).weight - plain.weight).abs().mean()
    assert 0.071 < error < 0.075


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_and_gradient_are_those_of_the_widened_weight(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = QuantizedLinear(Linear(64, 48))
    wide = layer.weight.to(dtype).requires_grad_(False)
    x = torch.randn(10, 64).to(dtype).requires_grad_()
    coefficients = torch.randn(10, 48).to(dtype)
    torch.testing.assert_close(layer.product(x), x @ wide.T)
    torch.testing.assert_close(layer(x), x @ wide.T + layer.bias.to(dtype))
    (found,) = torch.autograd.grad((layer.product(x) * coefficients).sum(), x)
    torch.testing.assert_close(found, coefficients @ wide)


def test_a_quantized_model_learns_by_its_adapter_and_can_be_restored(
    model: SequenceClassifier,
    targets: tuple[Target, ...],
    batch: PackedBatch,
    logits: Callable[[], Tensor],
    learned: Callable[[nn.Module], None],
) -> None:
    plain = logits()
    parameters = sum(model.get_submodule(name).weight.numel() for name in INNER)
    assert quantize(model, INNER) == parameters
    error = (logits() - plain).abs().max()
    assert 0 < error < 0.5
    attach(model, targets, AdapterConfig())
    freeze(model, "default")
    learned(model)
    with_it = logits()
    with pytest.raises(UserError, match="restore them first"):
        merge(model)
    model(batch).sum().backward()
    trained = {name for name, value in model.named_parameters() if value.grad is not None}
    assert trained and all(".adapter." in name for name in trained)
    assert not any("codes" in name for name in model.state_dict())
    restore(model)
    torch.testing.assert_close(logits(), with_it, rtol=0, atol=2e-5)
    merge(model)
    torch.testing.assert_close(logits(), with_it, rtol=0, atol=5e-5)
