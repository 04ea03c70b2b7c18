"""How the pieces of a vocabulary are spelt, and which of them go on with a word."""

import numpy as np
from tokenizers import Tokenizer

from igla.errors import UserError

# Letters of a piece that count; hardly any has more.
MOST_LETTERS = 24
# Stands before the letters of a piece that begins a word. Signs below 32 are in no piece.
WORD_START, WORD_END = 1, 2


def continuing(tokenizer: Tokenizer) -> np.ndarray:
    """[V] bool, which pieces go on with the word of the piece before."""
    pieces = tokenizer.get_vocab()
    spaced = any(piece.startswith("\u2581") for piece in pieces)
    found = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    for piece, number in pieces.items():
        found[number] = not piece.startswith("\u2581") if spaced else piece.startswith("##")
    return found


def spelling(tokenizer: Tokenizer) -> np.ndarray:
    """[V, MOST_LETTERS] int32 code points of each piece's letters in lower case, then zeros.

    A piece that begins a word has WORD_START before them; special tokens have no letters. UserError
    where pieces are not marked as BERT's are ("##ing"): there the letters may be bytes.
    """
    continues = continuing(tokenizer)
    if not any(piece.startswith("##") for piece in tokenizer.get_vocab()):
        raise UserError("model.ngrams asks for a vocabulary of word pieces, as BERT's.")
    special = {*tokenizer.get_added_tokens_decoder()}
    found = np.zeros((len(continues), MOST_LETTERS), dtype=np.int32)
    for piece, number in tokenizer.get_vocab().items():
        if number in special:
            continue
        spelt = [ord(letter) for letter in piece.removeprefix("##").casefold()]
        marked = spelt if continues[number] else [WORD_START, *spelt]
        found[number, : len(marked)] = marked[:MOST_LETTERS]
    return found
