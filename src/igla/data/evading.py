"""Training texts shown with the spellings of those who evade filters, other ones each time."""

from dataclasses import dataclass

import numpy as np

from igla.data.batch import PackedBatch
from igla.data.dataset import Dataset
from igla.data.store import TokenStore
from igla.text.evasion import evade
from igla.text.tokenizer import TextEncoder

# Of the words of a text that is rewritten.
WORDS_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class EvadingRows:
    """Rows of a data set, some of them rewritten.

    Which, and how, is a function of the seed, the row and the step alone.

    share  of the rows of a step that are rewritten
    """

    dataset: Dataset
    encoder: TextEncoder
    store: TokenStore
    share: float
    seed: int

    def batch(self, rows: np.ndarray, step: int) -> PackedBatch:
        """The given rows as a step shows them, packed."""
        draws = [np.random.default_rng([self.seed, step, int(row)]) for row in rows]
        chosen = np.array([draw.random() < self.share for draw in draws]).nonzero()[0]
        chosen = chosen[np.argsort(rows[chosen])]  # texts are read in their order
        texts = [
            evade(text, draws[place], WORDS_SHARE)
            for place, text in zip(chosen, self.dataset.texts(rows[chosen]), strict=True)
        ]
        sequences = self.store.sequences(rows)
        for place, ids in zip(chosen, self.encoder.encode(texts).ids, strict=True):
            sequences[place] = ids
        return self.store.packed(rows, sequences)
