"""Frozen weights in four bits: NF4 with double quantization (QLoRA, Dettmers et al. 2023).

Each 64 numbers share a scale, and each 256 scales another one; a number is the nearest of sixteen
quantiles of the normal distribution (there, section 3). That is 4 + 8/64 + 32/(64·256) = 4.127 bits
a parameter. Storage and kernels are those of bitsandbytes, an extra: pip install "igla[qlora]".
"""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from igla.errors import UserError
from igla.model.parts import Linear
from igla.ops.frozen import frozen_product

BLOCK, SCALES_BLOCK = 64, 256


class QuantizedLinear(Linear):
    """A linear layer whose weight is kept in NF4 and made wide again where it is read.

    x·W and its gradient are computed with the widened weight, in the type of x; the weight itself
    has no gradient. Its bias is that of the layer that it replaces.
    """

    codes: Tensor
    scales: Tensor
    scales_scales: Tensor
    mean_scale: Tensor
    levels: Tensor
    scale_levels: Tensor

    def __init__(self, layer: Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias, self.adapter = layer.bias, None
        weight = layer.weight.detach()
        codes, state = _library().quantize_4bit(
            weight, blocksize=BLOCK, quant_type="nf4", compress_statistics=True
        )
        stored = {
            "codes": codes,
            "scales": state.absmax,
            "scales_scales": state.state2.absmax,
            "mean_scale": state.offset,
            "levels": state.code,
            "scale_levels": state.state2.code,
        }
        for name, tensor in stored.items():
            # Not saved with what is trained: the base's folder has the weights.
            self.register_buffer(name, tensor, persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[O, I] float32, made anew."""
        return self.widened(torch.float32)

    @property
    def plain(self) -> bool:
        return False

    @property
    def stored_bits(self) -> int:
        """Of the weight; the tables of levels, which all weights share, are not counted."""
        stored = (self.codes, self.scales, self.scales_scales)
        return sum(8 * tensor.nbytes for tensor in stored)

    def times_weight(self, input: Tensor) -> Tensor:
        return frozen_product(input, self.widened)

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weight [O, I] that stands for the stored one."""
        library = _library()
        scales = library.QuantState(
            self.scales_scales,
            code=self.scale_levels,
            blocksize=SCALES_BLOCK,
            dtype=torch.float32,
        )
        state = library.QuantState(
            self.scales,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self.levels,
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=dtype,
            offset=self.mean_scale,
            state2=scales,
        )
        weight: Tensor = library.dequantize_4bit(self.codes, state)
        return weight


def quantize(model: nn.Module, names: Iterable[str]) -> int:
    """Put the named linear layers of ours into NF4, once each; returns the number of parameters.

    UserError where bitsandbytes is not installed.
    """
    parameters = 0
    for name in dict.fromkeys(names):
        parent, _, own = name.rpartition(".")
        holder: Any = model.get_submodule(parent)
        parameters += getattr(holder, own).weight.numel()
        setattr(holder, own, QuantizedLinear(getattr(holder, own)))
    return parameters


@torch.no_grad()
def restore(model: nn.Module) -> None:
    """Make quantized layers ordinary ones again, of the widened weights, their adapters kept."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedLinear):
            wide = Linear(module.in_features, module.out_features, module.bias is not None)
            wide.weight.copy_(module.weight)
            wide.weight.requires_grad_(False)
            wide.bias, wide.adapter = module.bias, module.adapter
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, wide)


def _library() -> ModuleType:
    try:
        import bitsandbytes.functional
    except ImportError:
        raise UserError(
            'NF4 needs bitsandbytes: pip install "igla[qlora]", or choose adapt.method=lora.'
        ) from None
    return bitsandbytes.functional
