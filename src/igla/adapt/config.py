"""What an adapter is."""

import math
from dataclasses import dataclass
from typing import Literal

from igla.errors import UserError

# The pattern of all linear layers inside the model's layers, as in PEFT.
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterConfig:
    """An adapter of one model.

    method            lora: W + s·B·A (Hu et al. 2021); dora: m·(W + s·B·A)/‖W + s·B·A‖ by rows
                      (Liu et al. 2024, equation 5)
    alpha             s = alpha/rank, or alpha/√rank where `rank_stabilised` (Kalajdzievski 2023)
    dropout           of what goes into A, while training
    targets           which layers have it, by components of their Hugging Face names ("query",
                      "layers.0", "layers.*.q_proj"), or "all-linear": all inside the layers
    whole             layers that are trained as they are beside it, named likewise
    """

    method: Literal["lora", "dora"] = "lora"
    rank: int = 16
    alpha: float = 32.0
    rank_stabilised: bool = False
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    whole: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"An adapter's rank must be 1 at least, but is {self.rank}.")

    def scale(self, rank: int | None = None) -> float:
        """s, for a matrix of another rank than the adapter's where that is given."""
        rank = rank or self.rank
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)
