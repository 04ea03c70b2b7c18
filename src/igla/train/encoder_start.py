"""How an encoder starts that learns from texts alone: from scratch, or from a base's body."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igla.model.config import EncoderConfig
from igla.model.folder import load_pretrained, read_shape
from igla.model.language import MaskedLanguageModel, ReplacedTokenModel
from igla.model.ngrams import spell
from igla.model.transplant import by_pieces, by_similarity, shared_tokens
from igla.recipe import Recipe
from igla.text.tokenizer import load_tokenizer
from igla.train.setup import check_vocabulary, shape_of
from igla.train.start import Start
from igla.train.task import Say
from igla.train.vocabulary import near_words, start_words

ModelOf = Callable[[Recipe, EncoderConfig], Any]


def build_encoder(model_of: ModelOf, recipe: Recipe, start: Start, say: Say) -> Any:
    """The model before its first step; model_of makes it of an encoder's shape."""
    if start.base is None:
        model = _from_scratch(model_of, recipe, start, say)
    else:
        model = _of_base(model_of, recipe, start.base, start, say)
    spell(model, start.encoder.tokenizer)
    return model


def _from_scratch(model_of: ModelOf, recipe: Recipe, start: Start, say: Say) -> Any:
    model = model_of(recipe, shape_of(recipe, start.encoder.vocab_size))
    _start_guesses(model, start)
    if recipe.model.words == "cooccurrence":
        start_words(model.encoder.embeddings, start.encoder, start.store, start.rows, say)
    return model


def _of_base(model_of: ModelOf, recipe: Recipe, base: Path, start: Start, say: Say) -> Any:
    config = read_shape(base, recipe.model.dropout, recipe.model.ngrams)
    check_vocabulary(load_tokenizer(base).get_vocab_size(), config, base)
    model = model_of(recipe, config)
    new = load_pretrained(model, base)
    anew = [name for name in new if not name.endswith(".letters")]  # those are spelt below
    say(f"base {recipe.model.base}: starts anew: {', '.join(anew) or 'nothing'}")
    if recipe.text.vocabulary == "base":
        return model
    moved = model_of(recipe, replace(config, vocab_size=start.encoder.vocab_size))
    own = moved.state_dict()
    kept = {
        name: value for name, value in model.state_dict().items() if value.shape == own[name].shape
    }
    moved.load_state_dict(kept, strict=False)
    _start_guesses(moved, start)
    with torch.no_grad():
        old = model.encoder.embeddings.word.weight
        found = _moved_words(start, base, old, recipe.model.words, say)
        moved.encoder.embeddings.word.weight.copy_(found)
    return moved


def _moved_words(start: Start, base: Path, old: Tensor, how: str, say: Say) -> Tensor:
    """The base's embeddings, for the new vocabulary."""
    tokenizer = load_tokenizer(base)
    shared = shared_tokens(start.encoder.tokenizer, tokenizer)
    share = int((shared >= 0).sum())
    say(f"vocabulary: {share:,} of {len(shared):,} tokens are the base's too, others by {how}")
    if how == "similar":
        guide = near_words(start.encoder, start.store, start.rows, old.shape[1])
        return by_similarity(old, shared, guide)
    return by_pieces(start.encoder.tokenizer, tokenizer, old, shared)


def _start_guesses(model: Any, start: Start) -> None:
    """Guess by frequency at first: the words' shares need not be learned."""
    guesser = model.generator if isinstance(model, ReplacedTokenModel) else model
    if not isinstance(guesser, MaskedLanguageModel):
        return
    occurrences = start.store.occurrences(start.rows, start.encoder.vocab_size)
    with torch.no_grad():
        guesser.guess.bias.copy_(torch.from_numpy(occurrences + 1).log())
        guesser.guess.bias.sub_(guesser.guess.bias.logsumexp(0))
