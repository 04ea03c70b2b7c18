"""The models that a server holds: opening them, and finding them by name and version."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from igla.errors import UserError
from igla.infer.classifier import Classifier, model_folder
from igla.sealed import MANIFEST, BrokenSeal, check_sealed, file_digest

_WARM_UP = "Проверка перед началом работы. Checking before the work begins."


@dataclass(frozen=True, eq=False)
class Served:
    """A model in service.

    version  the first 12 hex digits of the sha256 of its weights and of its rule for decisions
    """

    name: str
    version: str
    folder: Path
    classifier: Classifier

    @property
    def classes(self) -> tuple[str, ...]:
        return self.classifier.rule.classes


@dataclass(frozen=True)
class Windows:
    """Token ids of texts, a long text in several windows that overlap.

    sequences  each at most as long as the model reads
    owner      [W] which text each is of
    """

    sequences: list[np.ndarray]
    owner: np.ndarray


def open_model(where: str | Path, name: str) -> Served:
    """Load a run or a model folder and let it score once; UserError when it cannot be served."""
    folder = model_folder(where).resolve()
    if (folder / MANIFEST).is_file():
        try:
            check_sealed(folder)
        except BrokenSeal as error:
            raise UserError(f"{folder} is damaged: {error}") from None
    classifier = Classifier.load(folder)
    classifier.probabilities([_WARM_UP])
    return Served(name, _version(folder), folder, classifier)


def windows_of(classifier: Classifier, texts: Sequence[str], *, truncate: bool) -> Windows:
    """Cut texts into windows that overlap by a quarter, so that nothing falls between two; or to
    their first window."""
    encoder = classifier.encoder
    room = encoder.max_length - len(encoder.frame([]))
    sequences: list[np.ndarray] = []
    owner: list[int] = []
    for number, ids in enumerate(encoder.pieces(texts)):
        for start in [0] if truncate else _starts(len(ids), room):
            sequences.append(np.array(encoder.frame(ids[start : start + room])))
            owner.append(number)
    return Windows(sequences, np.array(owner))


class Models:
    """The models in service by name; the first is the default."""

    def __init__(self, served: Sequence[Served]):
        self._served = {one.name: one for one in served}
        if len(self._served) < len(served):
            raise UserError("Two models have the same name: write NAME=FOLDER.")
        self.all = tuple(served)
        self.default = served[0]

    def find(self, name: str | None = None, version: str | None = None) -> Served | None:
        """The model of a name and a version, where either is asked for."""
        found = self.default if name is None else self._served.get(name)
        return found if found and version in (None, found.version) else None


def _version(folder: Path) -> str:
    files = ("model.safetensors", "igla.json", "tokenizer.json")
    sums = [file_digest(folder / name) for name in files if (folder / name).is_file()]
    return hashlib.sha256("".join(sums).encode()).hexdigest()[:12]


def _starts(length: int, room: int) -> list[int]:
    """Where windows of `room` start so that each overlaps the next by a quarter at least."""
    if length <= room:
        return [0]
    count = -(-(length - room) // max(1, room * 3 // 4)) + 1
    return [round(one) for one in np.linspace(0, length - room, count)]
