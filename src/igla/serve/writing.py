"""From a request for texts to their pieces, by way of the engine that writes."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from igla.infer.decoding import Decided, Decoding
from igla.infer.generator import Generator
from igla.infer.scheduler import Reason
from igla.infer.text_stream import TextStream
from igla.serve.generation import GenerationEngine


@dataclass(frozen=True)
class Order:
    """What is asked for.

    decodings   one for each continuation of the prompt
    max_tokens  of each
    expected    of each, as far as one can tell: so many are counted as waiting; None: max_tokens
    stop        strings that end a text and are not part of it
    """

    prompt: Sequence[int]
    decodings: Sequence[Decoding]
    max_tokens: int
    stop: Sequence[str] = ()
    expected: int | None = None


@dataclass(frozen=True)
class Piece:
    """What has been added to a continuation.

    text      what is certain: the beginning of a possible stop string is held back
    tokens    decided since the last piece
    finished  why it has ended, with its last piece
    """

    index: int
    text: str
    tokens: Sequence[Decided]
    finished: Reason | None


async def write(
    engine: GenerationEngine, generator: Generator, order: Order
) -> AsyncGenerator[Piece]:
    """The pieces of all continuations as they come. Raises as GenerationEngine.write."""
    streams = [TextStream(generator.tokenizer, order.stop, order.prompt) for _ in order.decodings]
    expected = order.max_tokens if order.expected is None else order.expected
    events = engine.write(generator, order.prompt, order.decodings, order.max_tokens, expected)
    async with aclosing(events):
        async for progress, end in events:
            stream, text, taken = streams[progress.index], "", 0
            for decided in progress.tokens:
                text += stream.push(decided.token)
                taken += 1
                if stream.stopped_by is not None:
                    break
            finished = progress.finished
            if stream.stopped_by is not None:
                end(progress.index)
                finished = "stop"
            elif finished:
                text += stream.finish()
            yield Piece(progress.index, text, progress.tokens[:taken], finished)
