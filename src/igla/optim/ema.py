"""Exponential moving average of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

# Stands among the averages in a checkpoint; no parameter's name has a slash.
UPDATES = "ema/updates"


@final
class Ema:
    """Moving average a of the trained weights θ: a ← a + (1 − d)·(θ − a), begun at the weights.

    After n updates d = min(decay, (1 + n)/(10 + n)), so that the start is soon forgotten (as in
    TensorFlow's ExponentialMovingAverage). Averages have the type and device of their parameters;
    parameters without requires_grad and buffers have none.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self._averages = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averages towards the model's weights; to be called after each step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self._averages.values()), self._weights(model), 1 - decay)
        self.updates += 1

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """The model with its averaged weights inside the block, and exactly its own after it.

        Holds a copy of the weights for as long: between steps there is room, for there are no
        gradients. The model must not be trained inside.
        """
        weights = self._weights(model)
        own = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            torch._foreach_copy_(weights, list(self._averages.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, own)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by parameter name, not copied, and the number of updates (UPDATES)."""
        return {**self._averages, UPDATES: torch.tensor(self.updates)}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over copies of what tensors() gave, from any device.

        Raises ValueError, and changes nothing, where a name is missing or unknown or a shape
        differs.
        """
        expected = self.tensors()
        for name in expected.keys() ^ tensors.keys():
            has, lacks = ("model", "checkpoint") if name in expected else ("checkpoint", "model")
            raise ValueError(f"The {has}'s weight average has {name}, the {lacks}'s has not.")
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                raise ValueError(
                    f"The average of {name} is {list(tensor.shape)} in the checkpoint, "
                    f"but {list(expected[name].shape)} in the model."
                )
        for name, average in self._averages.items():
            average.copy_(tensors[name])
        self.updates = int(tensors[UPDATES])

    def _weights(self, model: nn.Module) -> list[Tensor]:
        named = dict(model.named_parameters())
        return [named[name] for name in self._averages]
