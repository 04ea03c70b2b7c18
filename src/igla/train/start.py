"""What a model starts from that learns from texts without labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from igla.data.store import TokenStore
from igla.text.tokenizer import TextEncoder


@dataclass(frozen=True, eq=False)
class Start:
    """The tokenizer, the texts' tokens, the numbers of the rows to train on, and the base's folder
    if there is one."""

    encoder: TextEncoder
    store: TokenStore
    rows: np.ndarray
    base: Path | None
