"""The bases that come with igla, each a folder here with a card of its own."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bundled:
    """A base that comes with igla.

    language       of the texts that it is for
    learning_rate  the peak rate at which classifiers start from it best (docs/log.md)
    """

    language: str
    learning_rate: float


BUNDLED = {"minilm-ru": Bundled("ru", 1e-4)}


def bundled_folder(name: str) -> Path:
    """The folder of one of BUNDLED."""
    return Path(__file__).parent / name
