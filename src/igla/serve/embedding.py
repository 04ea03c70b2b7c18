"""From texts to embeddings, by way of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from igla.infer.embedder import OfDecoder, OfEncoder, normalized
from igla.serve.engine import Engine
from igla.serve.tokens import Side, beside, whole


@dataclass(frozen=True)
class Embedded:
    """Embeddings of texts.

    vectors  [N, H] float32
    tokens   of all texts, the special ones around each among them
    """

    vectors: np.ndarray
    tokens: int


async def embed(
    engine: Engine,
    embedder: OfEncoder | OfDecoder,
    texts: Sequence[str],
    *,
    normalize: bool,
    cut: Side | None,
) -> Embedded:
    """Embeddings of one or more texts.

    cut  the side on which a text that is too long is cut; None: TextTooLong
    """
    sequences = await beside(texts, partial(whole, embedder.encoder, texts, cut))
    outputs = await engine.outputs(embedder.model, sequences)
    vectors = outputs.astype(np.float32)
    tokens = sum(len(sequence) for sequence in sequences)
    return Embedded(normalized(vectors) if normalize else vectors, tokens)
