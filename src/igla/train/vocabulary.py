"""The tokenizer of a run: the base's, or one trained on its texts, kept in the run folder."""

from collections.abc import Iterable
from pathlib import Path

from igla.model.families import read_config
from igla.model.folder import read_json
from igla.recipe import Recipe
from igla.sealed import BrokenSeal, check_sealed, write_sealed
from igla.text.tokenizer import (
    TextEncoder,
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
    return TextEncoder(load_tokenizer(kept), _max_length(recipe, base))


def _new_tokenizer(
    recipe: Recipe, texts: Iterable[str], base: Path | None, say: Say
) -> TextEncoder:
    if base is not None:
        return TextEncoder(load_tokenizer(base), _max_length(recipe, base))
    size = recipe.text.vocab_size
    if size == "auto":
        size = vocabulary_for(sum(len(text.split()) for text in texts))
    tokenizer = train_tokenizer(
        recipe.text.tokenizer, texts, vocab_size=size, lowercase=recipe.text.lowercase
    )
    say(f"tokenizer: {recipe.text.tokenizer} of {tokenizer.get_vocab_size():,}, trained on train")
    return TextEncoder(tokenizer, recipe.text.max_length)


def _max_length(recipe: Recipe, base: Path | None) -> int:
    if base is None:
        return recipe.text.max_length
    config = read_config(read_json(base / "config.json"), str(base))
    return min(recipe.text.max_length, config.max_positions)
