"""The cache of converted and tokenized data: sealed folders named by the hash of what they hold."""

from collections.abc import Callable
from pathlib import Path

from igla.cache import cache_root
from igla.sealed import BrokenSeal, check_sealed, write_sealed


def cached_folder(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """The sealed folder `kind/key`; written by `write` when it is missing or damaged."""
    folder = cache_root() / kind / key
    try:
        check_sealed(folder)
    except BrokenSeal:
        write_sealed(folder, write)
    return folder
