"""The vocabulary of a run: its tokenizer, the base's or trained and kept in the run folder, and
what its words' embeddings start from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from igla.data.cache import cached_folder
from igla.data.store import TokenStore
from igla.model.cooccurrence import VERSION, cooccurrence_embeddings
from igla.model.decoder.folder import read_decoder_config
from igla.model.encoder import Embeddings
from igla.model.families import read_config
from igla.model.folder import read_json
from igla.recipe import DECODER_TASKS, Recipe
from igla.sealed import BrokenSeal, check_sealed, write_sealed
from igla.text.tokenizer import (
    TextEncoder,
    add_mask,
    bytes_vocabulary_for,
    guard_tokenizer,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
    vocabulary_for,
)
from igla.train.task import Say

TOKENIZER = "tokenizer"


def open_tokenizer(
    recipe: Recipe, texts: Iterable[str], base: Path | None, folder: Path, say: Say
) -> TextEncoder:
    """The tokenizer of the run in a folder; made on the first call.

    texts  to train on, which can be gone through more than once
    """
    kept = folder / TOKENIZER
    try:
        # A resumed run must not train its tokenizer again.
        check_sealed(kept)
    except BrokenSeal:
        encoder = _new_tokenizer(recipe, texts, base, say)
        write_sealed(kept, lambda making: save_tokenizer(making, encoder, base))
    length = _max_length(recipe, base)
    if length < recipe.text.max_length:
        say(f"text.max_length is {length}, the most that the base reads")
    return TextEncoder(load_tokenizer(kept), length)


def start_words(
    embeddings: Embeddings, encoder: TextEncoder, store: TokenStore, rows: np.ndarray, say: Say
) -> None:
    """Replace the random embeddings of words by those of what stands near what in the given rows.

    They get the spread of the random ones that they replace; words too rare keep theirs.
    """
    weight = embeddings.word.weight
    found = torch.from_numpy(near_words(encoder, store, rows, weight.shape[1]))
    known = found.any(dim=1)
    with torch.no_grad():
        weight[: len(found)][known] = found[known] * weight.std()
    say(f"words: {int(known.sum()):,} of {len(found):,} start from what they stand near")


def near_words(encoder: TextEncoder, store: TokenStore, rows: np.ndarray, width: int) -> np.ndarray:
    """Embeddings [V, width] by what stands near what in the given rows; kept in the cache."""
    key = hashlib.sha256(f"{VERSION} {width} {encoder.tokenizer.to_str()}".encode())
    for array in (rows, store.offsets, store.tokens):
        key.update(np.ascontiguousarray(array).data)

    def write(folder: Path) -> None:
        found = cooccurrence_embeddings(store, rows, encoder.special, width)
        np.save(folder / "embeddings.npy", found)

    folder = cached_folder("cooccurrence", key.hexdigest()[:32], write)
    found: np.ndarray = np.load(folder / "embeddings.npy")
    return found


def _new_tokenizer(
    recipe: Recipe, texts: Iterable[str], base: Path | None, say: Say
) -> TextEncoder:
    if base is not None:
        tokenizer = load_tokenizer(base)
        if recipe.text.guard:
            guard_tokenizer(tokenizer, latin_as_russian=recipe.text.latin == "russian")
        if recipe.objective.task == "wedlm":
            add_mask(tokenizer)
        return TextEncoder(tokenizer, _max_length(recipe, base))
    size = recipe.text.vocab_size
    if size == "auto":
        words = sum(len(text.split()) for text in texts)
        decoder = recipe.text.tokenizer == "byte_bpe"
        size = bytes_vocabulary_for(words) if decoder else vocabulary_for(words)
    tokenizer = train_tokenizer(
        recipe.text.tokenizer,
        texts,
        vocab_size=size,
        lowercase=recipe.text.lowercase,
        guarded=recipe.text.guard,
        latin_as_russian=recipe.text.latin == "russian",
    )
    say(f"tokenizer: {recipe.text.tokenizer} of {tokenizer.get_vocab_size():,}, trained on train")
    return TextEncoder(tokenizer, recipe.text.max_length)


def _max_length(recipe: Recipe, base: Path | None) -> int:
    if base is None:
        return recipe.text.max_length
    if recipe.objective.task in DECODER_TASKS:
        return min(recipe.text.max_length, read_decoder_config(base).max_positions)
    config = read_config(read_json(base / "config.json"), str(base))
    return min(recipe.text.max_length, config.max_positions)
