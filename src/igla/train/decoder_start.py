"""How a decoder starts, what its validation tells, and the folder that it leaves."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from igla.errors import UserError
from igla.model.decoder import Decoder, load_decoder, save_decoder
from igla.model.decoder.families import can_say, family_of
from igla.model.decoder.folder import WEDLM
from igla.model.decoder.zoo import named_decoder
from igla.model.folder import read_json
from igla.objective.wedlm import BLOCK
from igla.recipe import Recipe
from igla.text.ending import end_of_text
from igla.text.tokenizer import TextEncoder, load_tokenizer
from igla.train.decoder_parts import experts_of, mixer_fields, prepare_routing, with_experts
from igla.train.start import Start
from igla.train.task import Say


def build_decoder(recipe: Recipe, start: Start, say: Say) -> Decoder:
    """The model before its first step: of a named shape, or a base's."""
    tokens, shape = start.encoder.vocab_size, recipe.model
    if start.base is None:
        changes = {
            name: value
            for name in ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size")
            if (value := getattr(shape, name)) is not None
        }
        size = dict(vocab_size=tokens, max_positions=recipe.text.max_length)
        config = named_decoder(shape.size, **size, **changes)
        if experts := experts_of(recipe):
            config = replace(config, experts=experts)
        model = Decoder(replace(config, **mixer_fields(shape, config.layers)))
        prepare_routing(model, recipe)
        return model
    if shape.mixers != ("attention",):
        raise UserError("model.mixers does nothing on a base, which has its own.")
    model = with_experts(load_decoder(start.base), recipe, say)
    prepare_routing(model, recipe)
    _check_vocabulary(model, tokens, start.base)
    return model


def _check_vocabulary(model: Decoder, tokens: int, base: Path) -> None:
    """UserError where the tokenizer has tokens that the model has no row for."""
    if tokens > model.config.vocab_size:
        raise UserError(
            f"The tokenizer of {base} has {tokens} tokens, "
            f"but its model knows {model.config.vocab_size}."
        )


def build_with_mask(recipe: Recipe, start: Start, say: Say) -> Decoder:
    """A base that has a row for the mask in its table of words and in its head; a new one, and a
    spare one that was there, starts as the mean of the others."""
    assert start.base is not None
    model, mask = load_decoder(start.base), start.encoder.mask_token_id
    if model.config.is_recurrent:
        raise UserError(
            f"{start.base} has layers that keep a state: they read a text in its order alone, and "
            "cannot learn objective.task=wedlm."
        )
    known = load_tokenizer(start.base).get_vocab_size()
    _check_vocabulary(model, known, start.base)
    if mask < known:
        return model
    grown = Decoder(replace(model.config, vocab_size=max(mask + 1, model.config.vocab_size)))
    weights, own = model.state_dict(), grown.state_dict()
    with torch.no_grad():
        for name, value in weights.items():
            own[name][: len(value)].copy_(value)
            if name in ("words.weight", "head.weight"):
                own[name][mask] = value[:known].mean(dim=0)
    say(f"mask: token {mask} of {grown.config.vocab_size:,}, the mean of all words at first")
    return grown


def bits_per_byte(figures: dict[str, float]) -> dict[str, float]:
    """With the bits that a byte of the texts costs, ends of text included, in place of the bytes
    that a token stands for: what models of different vocabularies can be compared by."""
    loss, size = figures["validation_loss"], figures.pop("bytes")
    return figures | {"bits_per_byte": loss / math.log(2) / size}


def write_decoder(
    folder: Path, model: Any, encoder: TextEncoder, tokenizer: Path, base: Path | None
) -> None:
    """Write the model as a folder of Hugging Face: the base's architecture, or the one that fits.

    tokenizer  the folder where the run keeps its own
    """
    end = end_of_text(tokenizer, encoder.tokenizer)
    content: dict[str, Any] = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": None}
    if base is not None:
        its_own = read_json(base / "config.json")
        if can_say(family_of(its_own, str(base)), model.config):
            content = its_own
        else:  # it has got experts
            content |= {name: its_own[name] for name in content if name in its_own}
    save_decoder(folder, model, content)


def write_with_mask(
    folder: Path, model: Any, encoder: TextEncoder, tokenizer: Path, base: Path | None
) -> None:
    """The same for one that has learned to fill masks, by which generation knows it."""
    assert base is not None
    learned = {"mask_token_id": encoder.mask_token_id, "block": BLOCK}
    save_decoder(folder, model, read_json(base / "config.json") | {WEDLM: learned})
