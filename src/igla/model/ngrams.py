"""What the letters of a whole word say, beside what its pieces say.

Shape suffixes: T tokens in all, L letters of a piece, N letters in all, W words, G n-grams in all,
S width of an n-gram's row, H hidden size, V vocabulary.
"""

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from igla.data.batch import PackedBatch
from igla.model.parts import Embedding
from igla.text.spelling import MOST_LETTERS, WORD_END, WORD_START, spelling

SIZES = range(2, 6)
WIDTH = 64
# Of the polynomial hash over letters, and of the product that spreads it (Fibonacci hashing).
BASE, SPREAD = 1_000_003, -7046029254386353131
# The table starts at zero, so that an n-gram not met in training says nothing; this lets it leave
# zero at the rates that suit the other weights.
_PROJECT_STD = 0.1


class WordNgrams(nn.Module):
    """Adds to the embedding of each token the n-grams of letters of the whole word that it is in.

    A word piece knows neither its neighbours in the word nor pieces that share letters with it;
    n-grams do, rare words and misspelt ones included (Bojanowski et al. 2017). Each n-gram of 2 to
    5 letters, the word's two ends being letters too, is hashed to a row of a table. A word's rows
    are summed, divided by the root of their number, and projected to the encoder's width.

    All is a function of the token ids: `letters` holds how each piece is spelt (see
    text.spelling.spelling). A hidden piece has no letters, and parts the word that it is in.
    """

    letters: Tensor

    def __init__(self, vocab_size: int, buckets: int, width: int):
        super().__init__()
        self.register_buffer("letters", torch.zeros(vocab_size, MOST_LETTERS, dtype=torch.int32))
        self.table = Embedding(buckets, WIDTH)
        self.project = nn.Parameter(torch.empty(width, WIDTH))
        self.reset()

    def reset(self) -> None:
        """Say nothing, as before training."""
        if self.project.is_meta:  # see parts.Embedding
            return
        nn.init.zeros_(self.table.weight)
        nn.init.normal_(self.project, std=_PROJECT_STD)

    def forward(self, batch: PackedBatch) -> Tensor:
        """What is added to the words' embeddings [T, H]."""
        word_T, letter_N, word_N = self._letters_of(batch)
        words = int(word_T[-1]) + 1
        row_G, word_G = ngrams(letter_N, word_N, self.table.num_embeddings)
        rows_GS = self.table(row_G)
        sum_WS = rows_GS.new_zeros(words, WIDTH).index_add(0, word_G, rows_GS)
        count_W = torch.bincount(word_G, minlength=words).clamp(min=1)
        word_WH = (sum_WS / count_W.sqrt()[:, None]) @ self.project.T
        return word_WH[word_T]

    def _letters_of(self, batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Each token's word, and all letters in order with the word of each."""
        letters_TL = self.letters[batch.tokens].long()
        first_T = letters_TL[:, 0]
        begins_T = (first_T == 0) | (first_T == WORD_START) | (batch.positions == 0)
        begins_T[1:] |= first_T[:-1] == 0
        word_T = begins_T.cumsum(0) - 1
        ends_T = (first_T != 0) & torch.cat([begins_T[1:], begins_T.new_ones(1)])
        letters_TL = torch.cat([letters_TL, (ends_T * WORD_END)[:, None]], dim=1)
        present_TL = letters_TL != 0
        token_N = present_TL.nonzero()[:, 0]
        return word_T, letters_TL[present_TL], word_T[token_N]


def ngrams(letter_N: Tensor, word_N: Tensor, buckets: int) -> tuple[Tensor, Tensor]:
    """Table rows of all n-grams inside words, and the word of each."""
    rows, words = [], []
    hash_N = letter_N
    for size in SIZES:
        hash_N = hash_N[:-1] * BASE + letter_N[size - 1 :]
        inside_N = word_N[: len(hash_N)] == word_N[size - 1 :]
        spread_G = hash_N[inside_N] * SPREAD
        rows.append((spread_G >> 32).remainder(buckets))
        words.append(word_N[: len(hash_N)][inside_N])
    return torch.cat(rows), torch.cat(words)


def spell(model: nn.Module, tokenizer: Tokenizer) -> None:
    """Tell a model's n-grams, if it has some, how the tokenizer's pieces are spelt.

    UserError where they are not word pieces.
    """
    for module in model.modules():
        if isinstance(module, WordNgrams):
            found = torch.from_numpy(spelling(tokenizer))
            module.letters.zero_()
            module.letters[: len(found)] = found
