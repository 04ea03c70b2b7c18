"""Which model an adapter belongs to."""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igla.errors import UserError

_KEY = "igla"
# Of each tensor; training changes all of a tensor, and what is large need not be read whole.
_READ = 4096


@dataclass(frozen=True)
class Base:
    """A model that adapters are attached to.

    name       its folder or Hub name
    digest     of its weights (see digest_of); None: not known, as in PEFT's own folders
    task_type  as PEFT calls what it does: SEQ_CLS or CAUSAL_LM
    quantized  whether its layers are in NF4 (see quantized.py)
    """

    name: str | None
    digest: str | None
    task_type: str | None
    quantized: bool = False

    @classmethod
    def of_adapter(cls, content: Mapping[str, Any], metadata: Mapping[str, str]) -> "Base":
        """From an adapter's config and the header of its file."""
        noted = json.loads(metadata.get(_KEY, "{}"))
        return cls(
            content.get("base_model_name_or_path"),
            noted.get("base"),
            content.get("task_type"),
            noted.get("quantized") == "nf4",
        )

    def metadata(self) -> dict[str, str]:
        """For the header of an adapter's file; one entry, since the library writes several in an
        order that is another one each time."""
        noted = {"base": self.digest, "quantized": "nf4" if self.quantized else None}
        return {_KEY: json.dumps(noted)}

    @property
    def said(self) -> str:
        return f" ({self.name})" if self.name else ""

    def check(self, model: "Base", adapter: str) -> None:
        """UserError unless an adapter of this base is one of a model's."""
        if None in (self.digest, model.digest) or self.digest == model.digest:
            return
        raise UserError(f"{adapter} is an adapter of {self.name}, not of {model.name}.")


def digest_of(folder: Path) -> str:
    """Of the names and shapes of a folder's weights, and of how each of them begins; in an
    adapter's folder they are the adapter's alone."""
    whole = hashlib.sha256()
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("adapter*.safetensors"))
    for path in files:
        with path.open("rb") as file:
            try:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
            except (struct.error, ValueError, MemoryError):
                raise UserError(f"{path} is damaged or not safetensors.") from None
            header.pop("__metadata__", None)
            for name, about in sorted(header.items()):
                begin, end = about["data_offsets"]
                whole.update(f"{name} {about['dtype']} {about['shape']}".encode())
                file.seek(8 + length + begin)
                whole.update(file.read(min(_READ, end - begin)))
    return whole.hexdigest()
