"""Where igla keeps what it can make again."""

import os
from pathlib import Path


def cache_root() -> Path:
    """$IGLA_CACHE, or igla's folder in the user's cache."""
    if chosen := os.environ.get("IGLA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "igla"
