"""The cache of converted and tokenized data: sealed folders named by the hash of what they hold."""

import os
from collections.abc import Callable
from pathlib import Path

from igla.sealed import BrokenSeal, check_sealed, write_sealed


def cache_root() -> Path:
    """$IGLA_CACHE, or igla's folder in the user's cache."""
    if chosen := os.environ.get("IGLA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "igla"


def cached_folder(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """The sealed folder `kind/key`; written by `write` when it is missing or damaged."""
    folder = cache_root() / kind / key
    try:
        check_sealed(folder)
    except BrokenSeal:
        write_sealed(folder, write)
    return folder
