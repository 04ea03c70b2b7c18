"""Replaced-token detection."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from igla.data.batch import PackedBatch
from igla.objective.base import Loss
from igla.objective.masking import Masking

# Of the discriminator's loss a token, beside the generator's loss a guess.
DETECTION_WEIGHT = 50.0


@dataclass(frozen=True)
class ReplacedToken:
    """Tell which words a small model has put in for others (ELECTRA: Clark et al. 2020, section 2).

    The loss is mean −log p of the generator at its guesses + 50 · mean binary cross-entropy of the
    discriminator at all tokens; no gradient goes from the latter to the former. `count` is that of
    the tokens.
    """

    masking: Masking

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.language.ReplacedTokenModel."""
        tokens_T = batch.tokens
        chosen_M = self.masking.choose(tokens_T)
        shown = replace(batch, tokens=self.masking.hide(tokens_T, chosen_M))
        guessed = model.generator.guessed(shown, chosen_M, tokens_T[chosen_M])
        replaced = replace(batch, tokens=tokens_T.index_copy(0, chosen_M, guessed.drawn))
        wrong_T = replaced.tokens != tokens_T
        logits_T = model(replaced).float()
        detection = F.binary_cross_entropy_with_logits(logits_T, wrong_T.float(), reduction="sum")
        generation = guessed.total * (len(tokens_T) / len(chosen_M))
        parts = {"generation": generation.detach(), "detection": detection.detach()}
        total = generation + DETECTION_WEIGHT * detection
        return Loss(total, torch.tensor(len(tokens_T), device=total.device), parts)
