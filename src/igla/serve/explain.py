"""Which words drive a score: occlusion.

Each word in turn is hidden from the model, and how far the score falls is what the word did to it
(Zeiler & Fergus 2014). Words are hidden behind the mask, which a model that was trained with word
dropout or by masked words knows; where there is no mask they are left out.
"""

import asyncio
from dataclasses import dataclass

import numpy as np

from igla.errors import UserError
from igla.infer.classifier import Classifier
from igla.infer.scoring import TOKENS_A_BATCH
from igla.serve.engine import Engine
from igla.serve.models import Served

MOST_WORDS = 128


@dataclass(frozen=True)
class Explanation:
    """Scores of a text, and what each word did to them.

    served         the model
    probabilities  [C] of the part of the text that was read
    spans          [W] begin and end of each word in the text
    effects        [W, C] how far each class's probability falls when the word is hidden
    """

    served: Served
    probabilities: np.ndarray
    spans: list[tuple[int, int]]
    effects: np.ndarray


async def explain(engine: Engine, served: Served, text: str) -> Explanation:
    """Of the first window of a text, and of its first 128 words."""
    classifier = served.classifier
    whole, words, spans = await asyncio.to_thread(_words, classifier, text)
    hidden = [_without(classifier, whole, places) for places in words]
    # In pieces, between which the texts of others are scored.
    asked, size = [whole, *hidden], max(1, TOKENS_A_BATCH // len(whole))
    pieces = [asked[start : start + size] for start in range(0, len(asked), size)]
    logits = np.concatenate([await engine.outputs(classifier.model, piece) for piece in pieces])
    probabilities = classifier.rule.probabilities(logits)
    return Explanation(served, probabilities[0], spans, probabilities[0] - probabilities[1:])


def _words(
    classifier: Classifier, text: str
) -> tuple[np.ndarray, list[list[int]], list[tuple[int, int]]]:
    """Token ids of the first window, and places and span of each word in it."""
    encoder = classifier.encoder
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
    return framed, list(places.values()), list(spans.values())


def _without(classifier: Classifier, ids: np.ndarray, places: list[int]) -> np.ndarray:
    try:
        mask = classifier.encoder.mask_token_id
    except UserError:
        return np.delete(ids, places)
    hidden = ids.copy()
    hidden[places] = mask
    return hidden
