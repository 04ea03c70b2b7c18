"""The token that ends a text, and how many bytes of a text each token stands for."""

import json
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from igla.errors import UserError


def end_of_text(folder: Path, tokenizer: Tokenizer) -> int:
    """The id of what tokenizer_config.json names eos_token.

    Raises UserError where it names none, or one that the vocabulary lacks.
    """
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    named = config.get("eos_token")
    token = named.get("content") if isinstance(named, dict) else named
    found = None if token is None else tokenizer.token_to_id(token)
    if found is None:
        raise UserError(
            f"{file} names no eos_token of the vocabulary: where texts end is not known."
        )
    return int(found)


def bytes_of_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """[V] bytes of UTF-8 that each token stands for; 0 for special ones.

    Byte-level vocabularies spell each byte as one letter. Others spell spaces as ▁, and single
    bytes as <0x0A>.
    """
    decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
    by_bytes = "ByteLevel" in json.dumps(decoder)
    sizes = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    for token, index in tokenizer.get_vocab().items():
        if by_bytes:
            sizes[index] = len(token)
        elif re.fullmatch("<0x[0-9A-F]{2}>", token):
            sizes[index] = 1
        else:
            sizes[index] = len(token.replace("▁", " ").encode())
    special = [
        index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special
    ]
    sizes[special] = 0
    return sizes
