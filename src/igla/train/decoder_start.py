"""How a decoder starts, what its validation tells, and the folder that it leaves."""

import math
from pathlib import Path
from typing import Any

from igla.errors import UserError
from igla.model.decoder import Decoder, load_decoder, save_decoder
from igla.model.decoder.zoo import named_decoder
from igla.model.folder import read_json
from igla.recipe import Recipe
from igla.text.ending import end_of_text
from igla.text.tokenizer import TextEncoder
from igla.train.start import Start
from igla.train.task import Say


def build_decoder(recipe: Recipe, start: Start, say: Say) -> Decoder:
    """The model before its first step: of a named shape, or a base's."""
    tokens = start.encoder.vocab_size
    if start.base is None:
        shape = recipe.model
        changes = {
            name: value
            for name in ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size")
            if (value := getattr(shape, name)) is not None
        }
        return Decoder(
            named_decoder(
                shape.size, vocab_size=tokens, max_positions=recipe.text.max_length, **changes
            )
        )
    model = load_decoder(start.base)
    if tokens > model.config.vocab_size:
        raise UserError(
            f"The tokenizer of {start.base} has {tokens} tokens, "
            f"but its model knows {model.config.vocab_size}."
        )
    return model


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
        content = read_json(base / "config.json")
    save_decoder(folder, model, content)
