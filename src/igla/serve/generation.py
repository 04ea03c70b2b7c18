"""One thread that writes: it steps the schedulers of all decoders that have work.

Between two forward passes new requests join and those whose client has left go; each pass serves
all who are being written for (infer.scheduler).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor

from igla.infer.decoding import Decision, Decoding, Proposal, Text
from igla.infer.generator import Generator
from igla.infer.scheduler import Progress, Scheduler
from igla.serve.engine import Closing, Full, TooLong
from igla.serve.worker import Worker


@dataclass(frozen=True)
class StepDone:
    """What is told of a forward pass: texts that were written on, tokens they have gained, seconds,
    and of those that got their first token, how long they have waited for it."""

    texts: int
    tokens: int
    seconds: float
    first_after: list[float]


@dataclass
class _Guarded:
    """A decoding that ends its text where it fails, and says how: whoever else is written for in
    the same pass goes on."""

    decoding: Decoding
    error: Exception | None = None

    def propose(self, text: Text, room: int) -> Proposal:
        return self.decoding.propose(text, room)

    def decide(self, text: Text, logits_RV: Tensor) -> Decision:
        try:
            return self.decoding.decide(text, logits_RV)
        except Exception as error:
            self.error = error
            return Decision([], ended=True)


@dataclass(eq=False)
class Writing:
    """A request that is being written for.

    left  tokens that it is still expected to take: those of its prompt until they are read, and
          `expected` of each text
    live  which continuations are being written
    """

    generator: Generator
    prompt: Sequence[int]
    decodings: Sequence[_Guarded]
    max_tokens: int
    expected: int
    events: "asyncio.Queue[Progress | Exception]" = field(default_factory=asyncio.Queue)
    left: int = 0
    live: set[int] = field(default_factory=set)
    number: int | None = None
    came: float = field(default_factory=time.perf_counter)
    begun: bool = False


class GenerationEngine:
    """Writes in one thread, for callers in the event loop that it was started in.

    capacity      tokens that may be expected and not written yet; what would go beyond is refused
    cache_tokens  of each decoder
    on_step       is told of each forward pass, in the thread
    """

    def __init__(self, capacity: int, cache_tokens: int, on_step: Callable[[StepDone], None]):
        self._capacity = capacity
        self._cache_tokens = cache_tokens
        self._on_step = on_step
        # Of a decoder that nobody holds any more nothing is left.
        self._schedulers: WeakKeyDictionary[Generator, Scheduler] = WeakKeyDictionary()
        self._running: dict[tuple[Generator, int], Writing] = {}
        self._commands: list[Callable[[], None]] = []
        self._tokens = 0
        self._rate = 200.0  # tokens a second, measured as it goes
        self._worker = Worker("writing", self._work)

    def start(self) -> None:
        """To be called in the event loop."""
        self._worker.start()

    @property
    def waiting_tokens(self) -> int:
        return self._tokens

    async def close(self) -> None:
        """Finish what was accepted, then end the thread."""
        await self._worker.close()

    async def write(
        self,
        generator: Generator,
        prompt: Sequence[int],
        decodings: Sequence[Decoding],
        max_tokens: int,
        expected: int,
    ) -> AsyncGenerator[tuple[Progress, Callable[[int], None]]]:
        """What is written after a prompt, once for each decoding, as it comes; with each event a
        function that ends one continuation early.

        max_tokens  of each
        expected    of each: who takes more is not refused for it

        Raises Full, TooLong or Closing at once, UserError for what the decoder cannot do. When the
        caller stops listening, nothing more is written.
        """
        guarded = [_Guarded(decoding) for decoding in decodings]
        writing = self._accept(Writing(generator, prompt, guarded, max_tokens, expected))
        ended: set[int] = set()

        def end(index: int) -> None:
            ended.add(index)
            self._command(lambda: self._cancel(writing, index))

        try:
            while len(ended) < len(decodings):
                event = await writing.events.get()
                if isinstance(event, Exception):
                    raise event
                if event.index in ended:
                    continue  # it was on its way
                if event.finished:
                    ended.add(event.index)
                yield event, end
        finally:
            self._command(lambda: self._cancel(writing))

    def _accept(self, writing: Writing) -> Writing:
        texts = len(writing.decodings)
        tokens = len(writing.prompt) + texts * writing.expected
        if tokens > self._capacity:
            raise TooLong(tokens, self._capacity)
        with self._worker.changed:
            if self._worker.closing:
                raise Closing
            if self._tokens + tokens > self._capacity:
                raise Full(self._tokens / self._rate)
            self._tokens += tokens
            writing.left, writing.live = tokens, set(range(texts))
            self._commands.append(lambda: self._submit(writing))
            self._worker.changed.notify()
        return writing

    def _command(self, command: Callable[[], None]) -> None:
        with self._worker.changed:
            self._commands.append(command)
            self._worker.changed.notify()

    # In the thread

    def _work(self) -> None:
        while self._obey():
            self._step_all()  # in a frame of its own: while it waits it holds no decoder

    def _step_all(self) -> None:
        for generator, scheduler in [*self._schedulers.items()]:
            if not scheduler.idle:
                self._step(generator, scheduler)

    def _obey(self) -> bool:
        """Do what was asked; waits while there is nothing to do. False when all is done and the
        engine closes."""
        with self._worker.changed:
            while not (self._commands or self._running or self._worker.closing):
                self._worker.changed.wait()
            commands, self._commands = self._commands, []
        for command in commands:
            command()
        return bool(commands or self._running or not self._worker.closing)

    def _submit(self, writing: Writing) -> None:
        generator = writing.generator
        if generator not in self._schedulers:
            self._schedulers[generator] = generator.scheduler(self._cache_tokens)
        try:
            writing.number = self._schedulers[generator].submit(
                writing.prompt,
                writing.decodings,
                max_tokens=writing.max_tokens,
                stop_tokens=generator.ends,
            )
        except Exception as error:
            self._release(writing, writing.left)
            self._tell([(writing, error)])
        else:
            self._running[generator, writing.number] = writing

    def _cancel(self, writing: Writing, index: int | None = None) -> None:
        if writing.number is None:
            return
        # After a failure another request may have the number.
        if self._running.get((writing.generator, writing.number)) is not writing:
            return
        self._schedulers[writing.generator].cancel(writing.number, index)
        writing.live = set() if index is None else writing.live - {index}
        if not writing.live:
            self._forget(writing)

    def _step(self, generator: Generator, scheduler: Scheduler) -> None:
        start = time.perf_counter()
        try:  # whatever goes wrong, the thread goes on: without it nobody would be answered again
            found = scheduler.step()
        except Exception as error:
            failed = [one for one in self._running.values() if one.generator is generator]
            del self._schedulers[generator]  # what it holds cannot be relied on
            for one in failed:
                self._forget(one)
            self._tell([(one, error) for one in failed])
            return
        told: list[tuple[Writing, Progress | Exception]] = []
        first_after = []
        for progress in found:
            writing = self._running.get((generator, progress.request))
            if writing is None:  # another of its texts has failed in this pass
                continue
            if (fault := writing.decodings[progress.index].error) is not None:
                self._cancel(writing)
                told.append((writing, fault))
                continue
            if not writing.begun:
                writing.begun = True
                first_after.append(time.perf_counter() - writing.came)
                self._release(writing, len(writing.prompt))
            self._release(writing, len(progress.tokens))
            told.append((writing, progress))
            if progress.finished:
                writing.live.discard(progress.index)
                if not writing.live:
                    self._forget(writing)
        self._tell(told)
        tokens, seconds = sum(len(one.tokens) for one in found), time.perf_counter() - start
        if tokens:
            self._rate += 0.1 * (tokens / seconds - self._rate)
        self._on_step(StepDone(len(found), tokens, seconds, first_after))

    def _forget(self, writing: Writing) -> None:
        assert writing.number is not None
        del self._running[writing.generator, writing.number]
        self._release(writing, writing.left)

    def _release(self, writing: Writing, tokens: int) -> None:
        tokens = min(tokens, writing.left)  # a text may be longer than expected
        with self._worker.changed:
            self._tokens -= tokens
        writing.left -= tokens

    def _tell(self, told: Sequence[tuple[Writing, Progress | Exception]]) -> None:
        if told:
            self._worker.call_back(_deliver, told)


def _deliver(told: Sequence[tuple[Writing, Progress | Exception]]) -> None:
    for writing, event in told:
        writing.events.put_nowait(event)
