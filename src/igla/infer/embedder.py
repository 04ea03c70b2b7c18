"""A saved model, from texts to embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from tokenizers import Tokenizer

from igla.data.batch import pack
from igla.errors import UserError
from igla.infer.classifier import Classifier
from igla.infer.scoring import score
from igla.model.decoder import Decoder
from igla.model.embedding import PooledDecoder, PooledEncoder, Pooling
from igla.model.folder import load_encoder, read_json
from igla.ops.native import native
from igla.ops.products import prepare_to_answer
from igla.text.tokenizer import TextEncoder, load_tokenizer

# Where sentence-transformers says how states are pooled.
POOLING_FILE = "1_Pooling/config.json"


Pooled = TypeVar("Pooled", bound=PooledEncoder | PooledDecoder)


class Embedder(Generic[Pooled]):
    """A model that stands for a text by the mean of its tokens' states or by one token's, and its
    tokenizer."""

    def __init__(self, model: Pooled, encoder: TextEncoder):
        model.eval()
        self.model = model
        self.encoder = encoder

    @staticmethod
    def load(folder: Path) -> "OfEncoder":
        """Open a folder of the BERT family, also one of sentence-transformers: its own pooling and
        its greatest length hold, else the mean and what the encoder has positions for."""
        prepare_to_answer()
        native()  # compiled now, if need be, and not with the first text
        body = load_encoder(folder)
        encoder = TextEncoder(load_tokenizer(folder), _greatest(folder, body.config.max_positions))
        return Embedder(PooledEncoder(body, pooling_of(folder)), encoder)

    @staticmethod
    def of(classifier: Classifier) -> "OfEncoder":
        """The mean of the states of a classifier's own encoder."""
        return Embedder(PooledEncoder(classifier.model.encoder, "mean"), classifier.encoder)

    @staticmethod
    def of_decoder(decoder: Decoder, tokenizer: Tokenizer, folder: Path) -> "OfDecoder":
        """What the states of a decoder stand for, by the folder that it came from, as in load."""
        length = _greatest(folder, decoder.config.max_positions)
        return Embedder(PooledDecoder(decoder, pooling_of(folder)), TextEncoder(tokenizer, length))

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return self.model.width

    def embeddings(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings [N, H] of texts, float32, of the length that the pooling gives them."""
        if not texts:
            return np.empty((0, self.width), dtype=np.float32)
        ids = self.encoder.encode(texts).ids
        lengths = np.array([len(sequence) for sequence in ids])
        device = next(self.model.parameters()).device
        found = score(self.model, lengths, lambda rows: pack([ids[row] for row in rows]), device)
        return found.astype(np.float32)


OfEncoder = Embedder[PooledEncoder]
OfDecoder = Embedder[PooledDecoder]


def pooling_of(folder: Path) -> Pooling:
    """What a folder of sentence-transformers says of it; the mean where nothing is said."""
    file = folder / POOLING_FILE
    if not file.is_file():
        return "mean"
    content = read_json(file)
    asked = [name for name, value in content.items() if name.startswith("pooling_mode_") and value]
    if isinstance(content.get("pooling_mode"), str):  # as newer versions write it
        asked = [f"pooling_mode_{content['pooling_mode']}"]
    known: dict[str, Pooling] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_mean": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_cls": "cls",
        "pooling_mode_lasttoken": "last",
    }
    if len(asked) != 1 or asked[0] not in known:
        raise UserError(
            f"{file} asks for {', '.join(asked) or 'no pooling'}; igla has mean, cls and last."
        )
    return known[asked[0]]


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Vectors [N, H] at length 1; one of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(vectors.dtype).tiny))


def _greatest(folder: Path, positions: int) -> int:
    """The longest text that a folder's model is for, in tokens."""
    asked = _length(folder / "sentence_bert_config.json", "max_seq_length")
    return int(min(positions, asked, _length(folder / "tokenizer_config.json", "model_max_length")))


def _length(file: Path, field: str) -> int | float:
    """Tokens that a file allows; infinity where it does not say."""
    content: dict[str, Any] = read_json(file) if file.is_file() else {}
    value = content.get(field)
    if value is None:
        return float("inf")
    if not isinstance(value, int | float) or value < 2:
        raise UserError(f"{file}, {field}: {value!r} is no number of tokens.")
    return value
