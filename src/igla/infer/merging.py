"""An adapter put into its base for good: what `igla adapt merge` does."""

import shutil
from pathlib import Path

from igla.adapt.folder import is_adapter, read_base
from igla.adapt.opened import base_of, open_decoder
from igla.errors import UserError
from igla.infer.classifier import Classifier, model_folder
from igla.infer.generator import is_decoder
from igla.model.decoder import save_decoder
from igla.model.folder import read_json
from igla.sealed import write_sealed

# Of a folder with a decoder, what stands beside the model.
_READING = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def merge_run(run: str, output: Path) -> str:
    """Write the model that a run's adapter makes of its base as an ordinary folder, and say so.

    UserError where there is no adapter, and where something else stands at the place.
    """
    folder = model_folder(run)
    if not is_adapter(folder):
        raise UserError(f"{folder} is no adapter: there is nothing to merge.")
    if output.exists():
        raise UserError(f"{output} is there already; choose another folder.")
    saved, base = read_base(folder), base_of(folder)
    if is_decoder(folder):
        model = open_decoder(folder)

        def write(making: Path) -> None:
            save_decoder(making, model, read_json(base / "config.json"))
            copy_reading(folder, base, making)
    else:
        classifier = Classifier.load(folder)

        def write(making: Path) -> None:
            classifier.save(making, read_json(base / "config.json"), folder)

    write_sealed(output, write)
    return f"{folder} merged into {saved.name}: {output}"


def copy_reading(folder: Path, base: Path, target: Path) -> None:
    """Copy what a decoder's texts are read and ended by from its folder, or where that is of an
    adapter and lacks it, from its base."""
    for name in _READING:
        source = folder / name if (folder / name).is_file() else base / name
        if source.is_file():
            shutil.copy(source, target / name)
