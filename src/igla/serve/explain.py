"""Which words drive a score.

occlusion  Each word in turn is hidden from the model, and how far the score falls is what the word
           did to it (Zeiler & Fergus 2014).
gradients  The score's slope along each word's embedding, over the way from all words hidden to the
           text as it is (see infer.gradients).

Words are hidden behind the mask, which a model that was trained with word dropout or by masked
words knows; where there is no mask they are left out. benchmarks/explain.py compares the two.
"""

import asyncio
from dataclasses import dataclass
from typing import Literal

import numpy as np

from igla.errors import UserError
from igla.infer.classifier import Classifier
from igla.infer.gradients import PathGradients, midpoints
from igla.infer.scoring import TOKENS_A_BATCH
from igla.serve.engine import Engine
from igla.serve.models import Served
from igla.text.tokenizer import TextEncoder

MOST_WORDS = 128
Method = Literal["occlusion", "gradients"]
# Of the way. On real comments the effects then miss their sum by 0.0002 (benchmarks/explain.py).
_POINTS = 32


@dataclass(frozen=True)
class Words:
    """The words of a text that are looked at.

    ids     [T] token ids of the first window
    places  of each word, where its tokens are among them
    spans   [W] begin and end of each word in the text
    """

    ids: np.ndarray
    places: list[list[int]]
    spans: list[tuple[int, int]]


@dataclass(frozen=True)
class Explanation:
    """Scores of a text, and what each word did to them.

    served         the model
    probabilities  [C] of the part of the text that was read
    spans          [W] begin and end of each word in the text
    effects        [W, C] by how much each class's probability is higher for the word
    """

    served: Served
    probabilities: np.ndarray
    spans: list[tuple[int, int]]
    effects: np.ndarray


async def explain(engine: Engine, served: Served, text: str, method: Method) -> Explanation:
    """Of the first window of a text, and of its first 128 words."""
    classifier = served.classifier
    words = await asyncio.to_thread(words_of, classifier.encoder, text)
    by_method = _by_occlusion if method == "occlusion" else _by_gradients
    probabilities, effects = await by_method(engine, classifier, words)
    return Explanation(served, probabilities, words.spans, effects)


def words_of(encoder: TextEncoder, text: str) -> Words:
    """The first window of a text, and its words."""
    room = encoder.max_length - len(encoder.frame([]))
    encoding = encoder.tokenizer.encode(text, add_special_tokens=False)
    framed = np.array(encoder.frame(encoding.ids[:room]))
    before = encoder.frame([-1]).index(-1)
    places: dict[int, list[int]] = {}
    spans: dict[int, tuple[int, int]] = {}
    for place, (word, (begin, end)) in enumerate(
        zip(encoding.word_ids[:room], encoding.offsets[:room], strict=True)
    ):
        if word is None or (word not in places and len(places) == MOST_WORDS):
            continue
        places.setdefault(word, []).append(before + place)
        first = spans.get(word, (begin, end))[0]
        spans[word] = (first, end)
    return Words(framed, list(places.values()), list(spans.values()))


def mask_of(encoder: TextEncoder) -> int | None:
    """The token behind which words are hidden."""
    try:
        return encoder.mask_token_id
    except UserError:
        return None


def without(encoder: TextEncoder, ids: np.ndarray, places: list[int]) -> np.ndarray:
    """Token ids with those at some places hidden."""
    mask = mask_of(encoder)
    if mask is None:
        return np.delete(ids, places)
    hidden = ids.copy()
    hidden[places] = mask
    return hidden


async def _by_occlusion(
    engine: Engine, classifier: Classifier, words: Words
) -> tuple[np.ndarray, np.ndarray]:
    asked = [words.ids, *(without(classifier.encoder, words.ids, one) for one in words.places)]
    # In pieces, between which the texts of others are scored.
    size = max(1, TOKENS_A_BATCH // len(words.ids))
    pieces = [asked[start : start + size] for start in range(0, len(asked), size)]
    logits = np.concatenate([await engine.outputs(classifier.model, piece) for piece in pieces])
    probabilities = classifier.rule.probabilities(logits)
    return probabilities[0], probabilities[0] - probabilities[1:]


async def _by_gradients(
    engine: Engine, classifier: Classifier, words: Words
) -> tuple[np.ndarray, np.ndarray]:
    logits = await engine.outputs(classifier.model, [words.ids])
    probabilities = classifier.rule.probabilities(logits)[0]
    hides = np.zeros(len(words.ids), dtype=bool)
    hides[[place for places in words.places for place in places]] = True
    mask, path = mask_of(classifier.encoder), midpoints(_POINTS)
    # A backward pass takes about as long as two forward passes.
    size = max(1, TOKENS_A_BATCH // 3 // len(words.ids))
    sums = np.zeros((len(words.ids), len(probabilities)))
    for start in range(0, _POINTS, size):
        slopes = PathGradients(classifier, mask, hides, path[start : start + size])
        sums += (await engine.outputs(slopes, [words.ids]))[0]
    effects = [sums[places].sum(axis=0) / _POINTS for places in words.places]
    return probabilities, np.array(effects).reshape(len(words.places), len(probabilities))
