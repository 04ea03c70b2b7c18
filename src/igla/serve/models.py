"""The models that a server holds: opening them, and finding them by name and version."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from igla.errors import UserError
from igla.infer.classifier import Classifier, model_folder
from igla.infer.embedder import Embedder
from igla.model.encoder import Encoder
from igla.model.folder import has_classifier
from igla.ops.products import probe
from igla.sealed import MANIFEST, BrokenSeal, check_sealed, file_digest
from igla.text.tokenizer import TextEncoder

# It stands in addresses and in a header of each answer.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
# The kinds of files that a model and its tokenizer are read from.
_READ = (".safetensors", ".json", ".txt")
Precision = Literal["auto", "float32", "bf16"]
_WARM_UP = "Проверка перед началом работы. Checking before the work begins."


class NoScores(Exception):
    """A model gives embeddings alone, and scores were asked of it."""

    def __init__(self, name: str):
        super().__init__(f"{name} is an encoder without a classifier: it gives embeddings alone.")


@dataclass(frozen=True, eq=False)
class Served:
    """A model in service.

    version  the first 12 hex digits of the sha256 of its folder's files
    where    the run or folder as it was named, from which it can be loaded anew
    model    a classifier, or an encoder alone
    """

    name: str
    version: str
    where: Path
    model: Classifier | Embedder

    @property
    def scores(self) -> bool:
        """Whether it is a classifier."""
        return isinstance(self.model, Classifier)

    @property
    def classifier(self) -> Classifier:
        """Raises NoScores where there is none."""
        if isinstance(self.model, Classifier):
            return self.model
        raise NoScores(self.name)

    @property
    def classes(self) -> tuple[str, ...]:
        """Raises NoScores where there are none."""
        return self.classifier.rule.classes

    @cached_property
    def embedder(self) -> Embedder:
        return Embedder.of(self.model) if isinstance(self.model, Classifier) else self.model

    @property
    def body(self) -> Encoder:
        return self.model.model.encoder

    @property
    def encoder(self) -> TextEncoder:
        return self.model.encoder


def open_model(where: str | Path, name: str, precision: Precision = "auto") -> Served:
    """Load a run or a model folder and let it score once; UserError when it cannot be served.

    precision  auto: bf16 where this processor's products are faster in it
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a model: letters of a to z, digits, . _ - alone.")
    try:
        return _opened(where, name, precision)
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}.") from None


def _opened(where: str | Path, name: str, precision: Precision) -> Served:
    folder = model_folder(where).resolve()
    if (folder / MANIFEST).is_file():
        try:
            check_sealed(folder)
        except BrokenSeal as error:
            raise UserError(f"{folder} is damaged: {error}") from None
    version = _version(folder)
    model = Classifier.load(folder) if has_classifier(folder) else Embedder.load(folder)
    if precision == "bf16" or (precision == "auto" and probe().bf16_is_better):
        model.model.encoder.compute_in_bf16()
    model.model.requires_grad_(False)
    warm_up = model.logits if isinstance(model, Classifier) else model.embeddings
    warm_up([_WARM_UP])
    if _version(folder) != version:
        raise UserError(f"{folder} has changed while it was read; load it again.")
    return Served(name, version, Path(where).absolute(), model)


class Models:
    """The models in service: of each name some versions, the newest of which answers who names
    none. The first name is the default."""

    def __init__(self, served: Sequence[Served], most: int):
        self._held = {one.name: [one] for one in served}
        self._most = most
        if len(self._held) < len(served):
            raise UserError("Two models have the same name: write NAME=FOLDER.")

    @property
    def default(self) -> Served:
        return next(iter(self._held.values()))[0]

    @property
    def all(self) -> list[Served]:
        """By name, the newest version of each first."""
        return [one for versions in self._held.values() for one in versions]

    def scoring(self) -> Served:
        """The first classifier; the default where there is none."""
        return next((one for one in self.all if one.scores), self.default)

    def embedding(self) -> Served:
        """The first encoder without a classifier, or else the default, by its classifier's own."""
        return next((one for one in self.all if not one.scores), self.default)

    def find(self, name: str | None = None, version: str | None = None) -> Served | None:
        """The model of a name and a version, where either is asked for."""
        return next((one for one in self.of(name) if version in (None, one.version)), None)

    def of(self, name: str | None) -> list[Served]:
        """The versions of a name, the newest first."""
        return [*self._held.get(self.default.name if name is None else name, [])]

    def put(self, served: Served) -> list[Served]:
        """Let a version answer from now on; what had to go for it."""
        versions = [one for one in self.of(served.name) if one.version != served.version]
        self._held[served.name] = [served, *versions[: self._most - 1]]
        return versions[self._most - 1 :]

    def drop(self, name: str, version: str | None) -> list[Served]:
        """Take a version away, or a name with all of them; what went. The default name stays with
        one version at least: UserError."""
        going = [one for one in self.of(name) if version in (None, one.version)]
        left = [one for one in self.of(name) if one not in going]
        if left:
            self._held[name] = left
        elif name == self.default.name:
            raise UserError(f"{name} is the default model; another version has to be loaded first.")
        else:
            self._held.pop(name, None)
        return going


def _version(folder: Path) -> str:
    files = sorted(one for one in folder.iterdir() if one.suffix in _READ)
    sums = "".join(f"{one.name}\n{file_digest(one)}\n" for one in files)
    return hashlib.sha256(sums.encode()).hexdigest()[:12]
