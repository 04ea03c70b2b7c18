"""What `igla model show` prints."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from igla.errors import UserError
from igla.model.bases import BUNDLED, bundled_folder
from igla.model.config import NAMED_SHAPES, EncoderConfig, named_config
from igla.model.count import Cost, decoder_cost, encoder_cost
from igla.model.decoder import DecoderConfig
from igla.model.decoder.families import FAMILIES as DECODERS
from igla.model.decoder.folder import read_decoder_config
from igla.model.decoder.zoo import NAMED_DECODERS, named_decoder
from igla.model.folder import read_json, read_shape
from igla.model.picture import draw_decoder, draw_encoder

# Of encoders that have no name with a vocabulary: that of BERT.
_ENCODER = {"vocab_size": 30_522, "max_positions": 512}


def print_model(name: str, context: int | None, *, as_json: bool) -> None:
    """A named shape or a folder, for texts of `context` tokens, or of the longest."""
    config = find_shape(name)
    if context is not None and context > config.max_positions:
        raise UserError(f"{name} reads {config.max_positions:,} tokens, not {context:,}.")
    if isinstance(config, DecoderConfig):
        cost, picture = decoder_cost(config, context), draw_decoder(config)
    else:
        cost, picture = encoder_cost(config, context), draw_encoder(config)
    if as_json:
        print(json.dumps(_as_json(name, config, cost), ensure_ascii=False, indent=1))
        return
    console = Console(highlight=False)
    console.print(picture, markup=False)
    console.print()
    console.print(_table(cost))


def find_shape(name: str) -> DecoderConfig | EncoderConfig:
    """The shape of that name, or of the model in that folder."""
    if name in NAMED_DECODERS:
        return named_decoder(name)
    if name in NAMED_SHAPES:
        return named_config(name, **_ENCODER)
    folder = bundled_folder(name) if name in BUNDLED else Path(name)
    if not folder.is_dir():
        known = ", ".join([*NAMED_DECODERS, *NAMED_SHAPES, *BUNDLED])
        raise UserError(f"'{name}' is neither a folder nor a named shape; there are {known}.")
    if not (folder / "config.json").is_file() and (folder / "model").is_dir():
        folder = folder / "model"  # a run's
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise UserError(f"{folder} is an adapter, whose shape is that of its base: {base}.")
    if read_json(folder / "config.json").get("model_type") in DECODERS:
        return read_decoder_config(folder)
    return read_shape(folder, dropout=0.0)


def _as_json(name: str, config: DecoderConfig | EncoderConfig, cost: Cost) -> dict[str, Any]:
    return {
        "model": name,
        "config": asdict(config),
        "parameters": cost.parameters,
        **asdict(cost),
        "training": cost.training,
        "serving": cost.serving,
    }


def _table(cost: Cost) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")

    def row(what: str, figure: str, more: str = "") -> None:
        table.add_row(what, figure, escape(more))

    row("[bold]parameters[/]", _short(cost.parameters), f"{cost.parameters:,}")
    for part, count in sorted(cost.parts.items(), key=lambda item: -item[1]):
        row(f"  {part}", _short(count), f"{count / cost.parameters:.1%}")
    if cost.active != cost.parameters:
        row("  met by a token", _short(cost.active), f"{cost.active / cost.parameters:.1%}")
    mean = f"mean over a text of {cost.context:,} tokens"
    row("[bold]operations a token[/]", _short(cost.forward), f"forward, {mean}")
    row("", _short(3 * cost.forward), "training: forward and backward")
    training = cost.training
    row("[bold]training[/]", _bytes(sum(training.values())), "AdamW in bf16, without activations")
    for what, size in training.items():
        row(f"  {what}", _bytes(size))
    row("  activations", _bytes(cost.activations), "a token")
    row("", _bytes(cost.recomputed), "a token, if layers are recomputed")
    row("[bold]serving[/]", _bytes(cost.serving["bf16"]), "weights in bf16")
    for precision, size in cost.serving.items():
        if precision != "bf16":
            row("", _bytes(size), precision)
    if cost.cache:
        whole = _bytes(cost.cache * cost.context)
        row("  cache", _bytes(cost.cache), f"a token in bf16; {whole} for {cost.context:,}")
    if cost.states:
        row("  states", _bytes(cost.states), "a text, however long")
    return table


def _short(count: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.2f} {letter}"
    return f"{count:.0f}"


def _bytes(count: float) -> str:
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"
