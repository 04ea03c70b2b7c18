"""Encoders that guess words: masked language models, and generator with discriminator.

Shape suffixes: T tokens in all, M tokens to guess, H hidden size, V vocabulary.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from igla.data.batch import PackedBatch
from igla.model.config import EncoderConfig
from igla.model.encoder import Encoder
from igla.model.parts import ACTIVATIONS, LayerNorm, Linear, init_weights
from igla.ops.cross_entropy import Guessed, linear_cross_entropy


class WordGuess(nn.Module):
    """From hidden states to words: dense, activation, norm, and the words' own embeddings
    (Press & Wolf 2017) with a bias, as in BERT."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.embedding_size or config.hidden_size
        self.dense = Linear(config.hidden_size, width)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = LayerNorm(width, eps=config.norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        init_weights(self.dense)

    def forward(self, x_MH: Tensor) -> Tensor:
        """What is compared with the words' embeddings."""
        result: Tensor = self.norm(self.activation(self.dense(x_MH)))
        return result


class MaskedLanguageModel(nn.Module):
    """An encoder that guesses hidden words (Devlin et al. 2019)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.guess = WordGuess(config)

    def forward(self, batch: PackedBatch, chosen_M: Tensor) -> Tensor:
        """What stands for the words at the chosen positions [M, H]."""
        result: Tensor = self.guess(self.encoder(batch)[chosen_M])
        return result

    def guessed(self, batch: PackedBatch, chosen_M: Tensor, words_M: Tensor) -> Guessed:
        """Cross-entropy with the words at the chosen positions, and guesses of its own there."""
        word = self.encoder.embeddings.word.weight
        return linear_cross_entropy(self(batch, chosen_M), word, self.guess.bias, words_M)


class ReplacedTokenModel(nn.Module):
    """A small masked language model, and an encoder that tells which words are its guesses
    (ELECTRA: Clark et al. 2020). The two share the embeddings."""

    def __init__(self, config: EncoderConfig, generator: EncoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.generator = MaskedLanguageModel(
            replace(generator, embedding_size=config.embedding_size or config.hidden_size)
        )
        for name in ("word", "ngrams", "position", "segment"):
            shared = getattr(self.encoder.embeddings, name)
            setattr(self.generator.encoder.embeddings, name, shared)
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.activation]
        self.output = Linear(config.hidden_size, 1)
        for module in (self.dense, self.output):
            init_weights(module)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Logits [T] of each token to be a guess."""
        x_TH = self.activation(self.dense(self.encoder(batch)))
        logits_T1: Tensor = self.output(x_TH)
        return logits_T1.squeeze(1)
