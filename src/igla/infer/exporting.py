"""What `igla export` does."""

from pathlib import Path

from igla.adapt.opened import open_decoder, whole_folder
from igla.errors import UserError
from igla.infer.classifier import model_folder
from igla.infer.genai_config import write_genai_config
from igla.infer.generator import ends_of
from igla.infer.merging import copy_reading
from igla.infer.onnx_export import export_onnx
from igla.terminal import plain_console

FORMATS = ("onnx",)


def export(where: str, kind: str, output: Path | None) -> None:
    """Write a decoder in a format of FORMATS, into a folder of that name in the decoder's if no
    other place is named."""
    if kind not in FORMATS:
        raise UserError(f"There is no format '{kind}'; there is {', '.join(FORMATS)}.")
    folder = model_folder(where)
    base = whole_folder(folder)
    target = output or folder / kind
    model = open_decoder(folder)
    target.mkdir(parents=True, exist_ok=True)
    file = export_onnx(model, target)
    write_genai_config(target, file.name, model.config, ends_of(folder, base))
    copy_reading(folder, base, target)
    size = sum(one.stat().st_size for one in target.glob(f"{file.name}*")) / 1e6
    plain_console().print(f"wrote {file} ({size:.1f} MB)")
