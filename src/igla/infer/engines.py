"""The engines of generation by name, for a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from igla.errors import UserError
from igla.infer.backend import Backend
from igla.infer.llamacpp_backend import LlamaCppBackend
from igla.infer.onnx_backend import OnnxBackend
from igla.infer.torch_backend import TorchBackend
from igla.model.decoder import Decoder
from igla.ops.weights import PRECISIONS, Precision

_BACKENDS = {one.name: one for one in (TorchBackend, OnnxBackend, LlamaCppBackend)}
ENGINES = (*_BACKENDS,)
# Where igla export puts what others than torch read.
FILES = {"onnx": "onnx/model.onnx", "llamacpp": "gguf/model.gguf"}


@dataclass(frozen=True)
class Engine:
    """Which engine computes.

    name       torch, onnx or llamacpp
    precision  of the weights; others than torch compute in what their file holds
    provider   of the onnx engine
    """

    name: str = "torch"
    precision: str = "float32"
    provider: str = "cpu"

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UserError(f"There is no engine '{self.name}'; there are {', '.join(ENGINES)}.")
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UserError(f"There is no precision '{self.precision}'; there are {known}.")
        if self.name != "torch" and self.precision != "float32":
            raise UserError(
                f"The {self.name} engine computes what its file says; {self.precision} is torch's."
            )
        if self.name != "onnx" and self.provider != "cpu":
            raise UserError(f"The provider {self.provider} is of the onnx engine, not {self.name}.")

    @property
    def said(self) -> str:
        """What it computes in, for people."""
        return self.precision if self.name == "torch" else f"what the {self.name} file holds"

    @property
    def scratch(self) -> str:
        """What scratch rows it can do; see Backend."""
        return _BACKENDS[self.name].scratch

    def open(self, model: Decoder, folder: Path, cache_tokens: int) -> Backend:
        """It with the weights of a folder, of which `model` is the decoder.

        Others than torch read a file that igla export makes, as folder/onnx/model.onnx, or that
        lies in the folder itself.
        """
        if self.name == "torch":
            precision = cast(Precision, self.precision)
            return TorchBackend(model, precision=precision, cache_tokens=cache_tokens)
        file, limit = self._file(folder), model.config.max_positions
        backend: Backend
        if self.name == "onnx":
            backend = OnnxBackend(
                file, max_positions=limit, provider=self.provider, cache_tokens=cache_tokens
            )
        else:
            backend = LlamaCppBackend(file, max_positions=limit, cache_tokens=cache_tokens)
        if backend.vocab_size != model.config.vocab_size:
            raise UserError(
                f"{file} has {backend.vocab_size:,} tokens and the model of {folder} "
                f"{model.config.vocab_size:,}: export it anew."
            )
        return backend

    def files(self, folder: Path) -> list[Path]:
        """Those that it reads besides the folder's own."""
        if self.name == "torch":
            return []
        file = self._file(folder)
        return sorted(file.parent.glob(f"{file.name}*"))  # weights of ONNX may lie beside the graph

    def _file(self, folder: Path) -> Path:
        inside = folder / FILES[self.name]
        return inside if inside.is_file() else folder / inside.name


TORCH = Engine()
