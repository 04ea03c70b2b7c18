"""How the pieces of a vocabulary are spelt, and which of them go on with a word."""

import numpy as np
from tokenizers import Tokenizer, models

from igla.errors import UserError

# Letters of a piece that count; hardly any has more.
MOST_LETTERS = 24
# Stands before the letters of a piece that begins a word. Signs below 32 are in no piece.
WORD_START, WORD_END = 1, 2


# What stands for the space before a word: in SentencePiece's vocabularies, and in those of bytes.
_SPACES = ("\u2581", "\u0120")


def _of_word_pieces(tokenizer: Tokenizer) -> bool:
    return isinstance(tokenizer.model, models.WordPiece)


def continuing(tokenizer: Tokenizer) -> np.ndarray:
    """[V] bool, which pieces go on with the word of the piece before.

    In word pieces those are marked; elsewhere those that begin a word may be, by a sign for the
    space before it.
    """
    pieces = tokenizer.get_vocab()
    found = np.zeros(1 + max(pieces.values()), dtype=bool)
    spaces = () if _of_word_pieces(tokenizer) else _SPACES
    space = next((one for one in spaces if any(piece.startswith(one) for piece in pieces)), None)
    for piece, number in pieces.items():
        found[number] = piece.startswith("##") if space is None else not piece.startswith(space)
    return found


def spelling(tokenizer: Tokenizer) -> np.ndarray:
    """[V, MOST_LETTERS] int32 code points of each piece's letters in lower case, then zeros.

    A piece that begins a word has WORD_START before them; special tokens have no letters. UserError
    where the vocabulary is not of word pieces ("##ing"): elsewhere the letters may be bytes.
    """
    if not _of_word_pieces(tokenizer):
        raise UserError("N-grams of letters (model.ngrams) ask for word pieces, as BERT's.")
    continues = continuing(tokenizer)
    added = tokenizer.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special}
    found = np.zeros((len(continues), MOST_LETTERS), dtype=np.int32)
    for piece, number in tokenizer.get_vocab().items():
        if number in special:
            continue
        spelt = [ord(letter) for letter in piece.removeprefix("##").casefold()]
        marked = spelt if continues[number] else [WORD_START, *spelt]
        found[number, : len(marked)] = marked[:MOST_LETTERS]
    return found
