"""Masked language modelling."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from igla.data.batch import PackedBatch
from igla.objective.base import Loss
from igla.objective.masking import Masking


@dataclass(frozen=True)
class MaskedLM:
    """Guess hidden words: Σ −log p(word) over those hidden, divided by their number
    (Devlin et al. 2019, section 3.1). What is hidden is drawn anew in every step."""

    masking: Masking

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.language.MaskedLanguageModel."""
        chosen_M = self.masking.choose(batch.tokens)
        shown = replace(batch, tokens=self.masking.hide(batch.tokens, chosen_M))
        guessed = model.guessed(shown, chosen_M, batch.tokens[chosen_M])
        return Loss(guessed.total, torch.tensor(len(chosen_M), device=guessed.total.device))
