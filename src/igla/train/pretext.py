"""What can be learned from texts without labels: for each pretext task its model and its loss."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from igla.data.windows import Cut, cut_by_lines, cut_in_a_row
from igla.infer.classifier import model_folder
from igla.model.config import EncoderConfig
from igla.model.embedding import SentenceEncoder, Student
from igla.model.folder import load_encoder, read_shape, save_pretrained
from igla.model.language import MaskedLanguageModel, ReplacedTokenModel
from igla.objective import Objective
from igla.objective.causal_lm import CausalLM
from igla.objective.contrastive import Contrastive
from igla.objective.distill import Distill
from igla.objective.masked_lm import MaskedLM
from igla.objective.masking import Masking
from igla.objective.replaced_token import ReplacedToken
from igla.objective.wedlm import Wedlm
from igla.recipe import Recipe
from igla.text.ending import bytes_of_tokens, end_of_text
from igla.text.spelling import continuing
from igla.text.tokenizer import TextEncoder
from igla.train.decoder_parts import routing_losses
from igla.train.decoder_start import (
    bits_per_byte,
    build_decoder,
    build_with_mask,
    write_decoder,
    write_with_mask,
)
from igla.train.encoder_start import build_encoder
from igla.train.start import Start
from igla.train.task import Say

Figures = dict[str, float]


@dataclass(frozen=True)
class Pretext:
    """A pretext task.

    objective   from a recipe and the tokenizer
    build       the model before its first step
    save        writes it, with its tokenizer and the base's folder at hand, as others read it
    cut         how documents become windows, by a tokenizer and the folder it is kept in
    figures     what a validation found, as it is told: sums over tokens, divided by their number
    by_dropout  the loss is of two passes that drop other elements, in a validation as well
    """

    objective: Callable[[Recipe, TextEncoder], Objective]
    build: Callable[[Recipe, Start, Say], Any]
    save: Callable[[Path, Any, TextEncoder, Path, Path | None], None]
    cut: Callable[[TextEncoder, Path], Cut]
    figures: Callable[[Figures], Figures] = dict
    by_dropout: bool = False


def _of_encoder(
    objective: Callable[[Recipe, TextEncoder], Objective],
    model: Callable[[Recipe, EncoderConfig], Any],
    *,
    by_dropout: bool = False,
) -> Pretext:
    return Pretext(
        objective,
        partial(build_encoder, model),
        _save_encoder,
        lambda encoder, folder: cut_by_lines(encoder),
        by_dropout=by_dropout,
    )


def _save_encoder(
    folder: Path, model: Any, encoder: TextEncoder, tokenizer: Path, base: Path | None
) -> None:
    save_pretrained(folder, model, model.config, encoder.pad_token_id)


def _masking(recipe: Recipe, encoder: TextEncoder) -> Masking:
    return masking_for(encoder, recipe.objective.mask_share, recipe.objective.mask_unit)


def masking_for(encoder: TextEncoder, share: float, unit: str) -> Masking:
    """Masking of the tokens of a vocabulary; UserError when it has no mask."""
    special = torch.from_numpy(encoder.special)
    continues = torch.from_numpy(continuing(encoder.tokenizer))
    return Masking(share, unit, encoder.mask_token_id, special, continues)


def generator_shape(config: EncoderConfig) -> EncoderConfig:
    """A quarter of the width and of the heads, as Clark et al. 2020 found best."""
    heads = max(1, config.heads // 4)
    width = config.hidden_size // 4 // heads * heads
    return replace(config, hidden_size=width, heads=heads, intermediate_size=4 * width)


def teacher_folder(recipe: Recipe) -> Path:
    """Of the teacher that distill asks for."""
    (teacher,) = recipe.objective.teachers
    return model_folder(teacher)


def _distill(recipe: Recipe, encoder: TextEncoder) -> Distill:
    return Distill(load_encoder(teacher_folder(recipe)).requires_grad_(False))


def _causal_lm(recipe: Recipe, encoder: TextEncoder) -> CausalLM:
    return CausalLM(torch.from_numpy(bytes_of_tokens(encoder.tokenizer)), routing_losses(recipe))


PRETEXTS = {
    "masked_lm": _of_encoder(
        lambda recipe, encoder: MaskedLM(_masking(recipe, encoder)),
        lambda recipe, config: MaskedLanguageModel(config),
    ),
    "replaced_token": _of_encoder(
        lambda recipe, encoder: ReplacedToken(_masking(recipe, encoder)),
        lambda recipe, config: ReplacedTokenModel(config, generator_shape(config)),
    ),
    "contrastive": _of_encoder(
        lambda recipe, encoder: Contrastive(recipe.objective.temperature),
        lambda recipe, config: SentenceEncoder(config),
        by_dropout=True,
    ),
    "distill": _of_encoder(
        _distill,
        lambda recipe, config: Student(
            config, read_shape(teacher_folder(recipe), dropout=0.0).hidden_size
        ),
    ),
    "causal_lm": Pretext(
        _causal_lm,
        build_decoder,
        write_decoder,
        lambda encoder, folder: cut_in_a_row(encoder, end_of_text(folder, encoder.tokenizer)),
        bits_per_byte,
    ),
    "wedlm": Pretext(
        lambda recipe, encoder: Wedlm(encoder.mask_token_id),
        build_with_mask,
        write_with_mask,
        lambda encoder, folder: cut_in_a_row(encoder, end_of_text(folder, encoder.tokenizer)),
    ),
}
