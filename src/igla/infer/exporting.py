"""What `igla export` does."""

from pathlib import Path

from igla.adapt.opened import whole_folder
from igla.errors import UserError
from igla.infer.classifier import model_folder
from igla.infer.genai_config import write_genai_config
from igla.infer.generator import Generator, ends_of
from igla.infer.gguf_export import export_gguf
from igla.infer.gguf_vocabulary import Vocabulary
from igla.infer.merging import copy_reading
from igla.infer.onnx_export import export_onnx
from igla.ops.weights import PRECISIONS
from igla.terminal import plain_console

FORMATS = ("onnx", "gguf")


def export(where: str, kind: str, precision: str, output: Path | None) -> None:
    """Write a decoder in a format of FORMATS, into a folder of that name in the decoder's if no
    other place is named.

    precision  of matrices in GGUF; ONNX is float32
    """
    if kind not in FORMATS:
        raise UserError(f"There is no format '{kind}'; there are {', '.join(FORMATS)}.")
    if precision not in PRECISIONS:
        raise UserError(f"There is no precision '{precision}'; there are {', '.join(PRECISIONS)}.")
    if kind == "onnx" and precision != "float32":
        raise UserError(f"ONNX graphs are of float32; {precision} is for GGUF.")
    folder, console = model_folder(where), plain_console()
    base, generator = whole_folder(folder), Generator.load(folder)
    model, ends = generator.model, ends_of(folder, base)
    target = output or folder / kind
    target.mkdir(parents=True, exist_ok=True)
    if kind == "onnx":
        file = export_onnx(model, target)
        write_genai_config(target, file.name, model.config, ends)
        copy_reading(folder, base, target)
    else:
        vocabulary = Vocabulary.of(generator.tokenizer, ends, generator.template)
        file = export_gguf(model, target, precision, vocabulary)
        if vocabulary is None:
            console.print("llama.cpp has no such tokenizer: the file is for token ids alone")
    size = sum(one.stat().st_size for one in target.glob(f"{file.name}*")) / 1e6
    console.print(f"wrote {file} ({size:.1f} MB)")
