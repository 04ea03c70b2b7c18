"""From texts to token ids: long texts in windows, or cut, or refused."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from igla.text.guard import reading
from igla.text.tokenizer import TextEncoder

T = TypeVar("T")
Side = Literal["left", "right"]
# Letters of which tokens are made in less than a millisecond or two.
_AT_ONCE = 10_000


class TextTooLong(Exception):
    """A text is longer than the model reads, and may not be cut."""

    def __init__(self, tokens: int, most: int):
        super().__init__(f"A text has {tokens:,} tokens; the model reads {most:,} at most.")


@dataclass(frozen=True)
class Windows:
    """Token ids of texts, a long or evasive text in several windows.

    sequences  each at most as long as the model reads
    owner      [W] which text each is of
    """

    sequences: list[np.ndarray]
    owner: np.ndarray


async def beside(texts: Sequence[str], work: Callable[[], T]) -> T:
    """The result of work on texts: a long request must not keep the event loop from the others."""
    if sum(map(len, texts)) > _AT_ONCE:
        return await asyncio.to_thread(work)
    return work()


def windows_of(
    encoder: TextEncoder, texts: Sequence[str], *, truncate: bool, guarded: bool = False
) -> Windows:
    """Cut texts into windows that overlap by a quarter, so that nothing falls between two; or to
    their first window.

    guarded  texts that text.guard reads otherwise have windows of that reading as well
    """
    room = encoder.max_length - len(encoder.frame([]))
    sequences: list[np.ndarray] = []
    owner: list[int] = []
    written = encoder.pieces(texts)
    readings = _of_readings(encoder, texts, written) if guarded else []
    for number, ids in [*enumerate(written), *readings]:
        for start in [0] if truncate else _starts(len(ids), room):
            sequences.append(np.array(encoder.frame(ids[start : start + room])))
            owner.append(number)
    return Windows(sequences, np.array(owner, dtype=np.int64))


def whole(encoder: TextEncoder, texts: Sequence[str], cut: Side | None) -> list[np.ndarray]:
    """Token ids of each text in one piece.

    cut  the side on which a text that is too long is cut; None: TextTooLong
    """
    around = len(encoder.frame([]))
    room = encoder.max_length - around
    sequences = []
    for ids in encoder.pieces(texts):
        if len(ids) > room and cut is None:
            raise TextTooLong(len(ids) + around, encoder.max_length)
        kept = ids[-room:] if cut == "left" else ids[:room]
        sequences.append(np.array(encoder.frame(kept)))
    return sequences


def _of_readings(
    encoder: TextEncoder, texts: Sequence[str], written: list[list[int]]
) -> list[tuple[int, list[int]]]:
    """The number and the ids of each text of which the guard makes other ids than are `written`."""
    read = {number: found for number, text in enumerate(texts) if (found := reading(text))}
    of_read = zip(read, encoder.pieces([*read.values()]), strict=True)
    return [(number, ids) for number, ids in of_read if ids != written[number]]


def _starts(length: int, room: int) -> list[int]:
    """Where windows of `room` start so that each overlaps the next by a quarter at least."""
    if length <= room:
        return [0]
    count = -(-(length - room) // max(1, room * 3 // 4)) + 1
    return [round(one) for one in np.linspace(0, length - room, count)]
