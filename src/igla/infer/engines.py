"""The engines of generation by name, for a folder."""

from pathlib import Path
from typing import Literal

from igla.errors import UserError
from igla.infer.backend import Backend
from igla.infer.onnx_backend import OnnxBackend
from igla.infer.onnx_export import MODEL_FILE
from igla.infer.torch_backend import TorchBackend
from igla.model.decoder import Decoder
from igla.ops.weights import PRECISIONS

Engine = Literal["torch", "onnx"]
ENGINES: tuple[Engine, ...] = ("torch", "onnx")


def open_engine(
    engine: str,
    model: Decoder,
    folder: Path,
    *,
    cache_tokens: int,
    precision: str = "float32",
    provider: str = "cpu",
) -> Backend:
    """An engine with the weights of a folder, of which `model` is the decoder.

    onnx reads folder/onnx/model.onnx, which igla export makes, or folder/model.onnx.
    """
    if engine not in ENGINES:
        raise UserError(f"There is no engine '{engine}'; there are {', '.join(ENGINES)}.")
    if precision not in PRECISIONS:
        raise UserError(f"There is no precision '{precision}'; there are {', '.join(PRECISIONS)}.")
    if engine == "torch":
        return TorchBackend(model, precision=precision, cache_tokens=cache_tokens)
    if precision != "float32":
        raise UserError(f"The onnx engine computes what the graph says; {precision} is torch's.")
    inside = folder / "onnx" / MODEL_FILE
    return OnnxBackend(
        inside if inside.is_file() else folder / MODEL_FILE,
        max_positions=model.config.max_positions,
        provider=provider,
        cache_tokens=cache_tokens,
    )
