"""The small parts that models are made of."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igla.ops.linear import linear
from igla.ops.norm import add_norm

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
}


class Adapter(Protocol):
    """What is attached to a layer from outside and changes what it gives (see igla.adapt).

    active  names of what does so now; none: the layer is as it would be alone
    """

    active: tuple[str, ...]

    def __call__(self, layer: Any, input: Tensor, output: Tensor) -> Tensor:
        """What the layer, without its bias, gives for an input in place of `output`."""

    def whole_weight(self, layer: Any) -> Tensor:
        """The matrix with which the layer alone would give that."""


class Linear(nn.Linear):
    """A linear layer that computes in its input's type: its float32 weights are cast to it.

    This takes the place of autocast: the activation's type is chosen once, where the embeddings
    end, and everything after follows. The weights' gradient has the activation's type too.

    adapter   what changes the product from outside (see Adapter); None: nothing
    variants  what it is when others than its present values hold (see igla.adapt.whole)
    """

    variants: Any = None

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__(inputs, outputs, bias)
        self.weight.grad_dtype = None  # any, see ops.linear
        self.adapter: Adapter | None = None

    @property
    def plain(self) -> bool:
        """Whether an operation may take `weight` itself in place of the product."""
        return self.adapter is None or not self.adapter.active

    def forward(self, input: Tensor) -> Tensor:
        if self.plain:
            return linear(input, self.weight, self.bias)
        y = self.product(input)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def product(self, input: Tensor) -> Tensor:
        """x·Wᵀ, for an operation that adds the bias itself."""
        y = self.times_weight(input)
        return y if self.adapter is None else self.adapter(self, input, y)

    def times_weight(self, input: Tensor) -> Tensor:
        """The product without what an adapter makes of it."""
        return linear(input, self.weight, None)

    def whole_weight(self) -> Tensor:
        """The matrix that `product` multiplies by, for an operation that needs it as one."""
        return self.weight if self.adapter is None else self.adapter.whole_weight(self)


class LayerNorm(nn.LayerNorm):
    """LayerNorm (Ba et al. 2016) that computes in float32 and returns its input's type."""

    def after_sum(
        self, x_TH: Tensor, x_bias_H: Tensor, residual_TH: Tensor, dropout: float
    ) -> Tensor:
        """LN(residual + dropout(x + x_bias))."""
        return add_norm(x_TH, x_bias_H, residual_TH, self.weight, self.bias, self.eps, dropout)

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class Embedding(nn.Embedding):
    """A table of rows that is updated row by row where the optimizer can do that.

    before_reading  what the optimizer wants to do to rows that are about to be read (see
                    optim.AdamW.by_rows); with it, the gradient is sparse. None: an ordinary table
    adapter         what changes the rows from outside (see Adapter); None: nothing
    variants        as of Linear
    """

    variants: Any = None
    before_reading: Callable[[Tensor], None] | None = None

    def __init__(self, rows: int, width: int):
        super().__init__(rows, width)
        self.adapter: Adapter | None = None

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # to draw what has no numbers, torch would load all of sympy
            super().reset_parameters()

    def __getstate__(self) -> dict[str, Any]:
        # A copy has a weight of its own, which no optimizer has been told of.
        return self.__dict__ | {"before_reading": None}

    def forward(self, input: Tensor) -> Tensor:
        if self.adapter is not None:
            return self.adapter(self, input, super().forward(input))
        if self.before_reading is None:
            return super().forward(input)
        self.before_reading(input)
        return F.embedding(input, self.weight, sparse=True)


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model that was made on the meta device its numbers, all of them, as they are: to draw
    20 million at random first and to copy them takes 0.2 s."""
    types = {name: value.dtype for name, value in model.state_dict().items()}
    typed = {name: value.to(types[name]) for name, value in state.items()}
    model.load_state_dict(typed, assign=True)
    for module in model.modules():
        if isinstance(module, Linear):
            module.weight.grad_dtype = None  # it is a new parameter


def init_weights(module: nn.Module, std: float = 0.02) -> None:
    """BERT's initialisation: normal matrices, zero biases, norms at identity."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=std)
