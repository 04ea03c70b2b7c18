"""One model thread, which takes what waits: batches without a timer.

While the thread computes, sequences of other requests gather; when it is free it takes as many of
them, of one model, as make a batch. A lone request never waits, and under load the batches grow by
themselves. Requests take turns, one sequence each, so that none with many holds the others back.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from igla.infer.scoring import TOKENS_A_BATCH, outputs_of
from igla.serve.worker import Worker


class Full(Exception):
    """The queue holds all it may.

    wait  seconds after which there should be room
    """

    def __init__(self, wait: float):
        self.wait = max(1.0, wait)
        super().__init__(f"The queue is full; try again in {self.wait:.0f} s.")


class TooLong(Exception):
    """One request asks for more than the queue may ever hold."""

    def __init__(self, tokens: int, capacity: int):
        super().__init__(f"The texts have {tokens:,} tokens; {capacity:,} are the most at once.")


class Closing(Exception):
    """The engine takes no more work."""


@dataclass(eq=False)
class _Job:
    """The sequences of one request.

    taken  how many of them are computed or being so
    left   how many have no output yet
    done   is given the outputs [N, …] when none is left, or the error; cancelled by who has left
    """

    model: nn.Module
    sequences: list[np.ndarray]
    outputs: list[np.ndarray | None]
    left: int
    done: "asyncio.Future[np.ndarray]"
    came: float = field(default_factory=time.perf_counter)
    taken: int = 0
    began: float = 0.0
    ended: float = 0.0

    @property
    def waiting_tokens(self) -> int:
        return sum(len(sequence) for sequence in self.sequences[self.taken :])


@dataclass(frozen=True)
class BatchDone:
    """What is told of a batch: its sequences and tokens, seconds computing and of the longest wait
    before."""

    sequences: int
    tokens: int
    seconds: float
    waited: float


@dataclass(frozen=True)
class JobDone:
    """What is told of a request: its sequences and tokens, and when (by time.perf_counter) it came,
    the first of its batches began and the last one ended."""

    sequences: int
    tokens: int
    came: float
    began: float
    ended: float


class Engine:
    """Computes outputs of models in one thread, for callers in the event loop that it was started
    in.

    capacity  tokens that may wait; what would go beyond is refused at once. Of what is more than a
              batch by itself, three quarters: some room is always left for the others
    on_batch  is told of each batch, in the model thread
    on_job    is told of each request that has its outputs, where they are waited for
    """

    def __init__(
        self,
        capacity: int,
        on_batch: Callable[[BatchDone], None],
        on_job: Callable[[JobDone], None] | None = None,
    ):
        self._capacity = capacity
        self._on_batch = on_batch
        self._on_job = on_job
        self._waiting: deque[_Job] = deque()
        self._tokens = 0
        self._rate = 5_000.0  # tokens a second, measured as it goes
        self._worker = Worker("model", self._work)

    def start(self) -> None:
        """To be called in the event loop."""
        self._worker.start()

    @property
    def waiting_tokens(self) -> int:
        return self._tokens

    async def outputs(self, model: nn.Module, sequences: list[np.ndarray]) -> np.ndarray:
        """What a model gives for token ids [N, …], as logits [N, C] or embeddings [N, H]; N ≥ 1.

        Raises Full, TooLong or Closing at once. When the caller is cancelled, what is not computed
        yet never will be.
        """
        done = asyncio.get_running_loop().create_future()
        job = _Job(model, sequences, [None] * len(sequences), len(sequences), done)
        tokens = job.waiting_tokens
        most = self._capacity if tokens <= TOKENS_A_BATCH else self._capacity * 3 // 4
        if tokens > most:
            raise TooLong(tokens, most)
        with self._worker.changed:
            if self._worker.closing:
                raise Closing
            if self._tokens + tokens > most:
                raise Full(self._tokens / self._rate)
            self._waiting.append(job)
            self._tokens += tokens
            self._worker.changed.notify()
        outputs = await job.done
        if self._on_job is not None:
            self._on_job(JobDone(len(sequences), tokens, job.came, job.began, job.ended))
        return outputs

    async def close(self) -> None:
        """Finish what was accepted, then end the thread."""
        await self._worker.close()

    def _work(self) -> None:
        with torch.inference_mode():
            while batch := self._take():
                self._compute(batch)

    def _take(self) -> list[tuple[_Job, int]]:
        """The next batch, waited for; empty when the engine closes and nothing is left."""
        with self._worker.changed:
            while not (batch := self._next_batch()) and not self._worker.closing:
                self._worker.changed.wait()
            return batch

    def _next_batch(self) -> list[tuple[_Job, int]]:
        """A sequence of each job of one model in turn, as many as make a batch."""
        batch: list[tuple[_Job, int]] = []
        others: list[_Job] = []
        tokens = 0
        while self._waiting:
            job = self._waiting.popleft()
            if job.done.done():  # its caller has left, or another of its sequences has failed
                self._tokens -= job.waiting_tokens
                continue
            if batch and job.model is not batch[0][0].model:
                others.append(job)
                continue
            length = len(job.sequences[job.taken])
            if batch and tokens + length > TOKENS_A_BATCH:
                self._waiting.appendleft(job)
                break
            batch.append((job, job.taken))
            job.taken += 1
            tokens += length
            self._tokens -= length
            if job.taken < len(job.sequences):
                self._waiting.append(job)
        self._waiting.extendleft(reversed(others))
        return batch

    def _compute(self, batch: list[tuple[_Job, int]]) -> None:
        start = time.perf_counter()
        waited = start - min(job.came for job, _ in batch)
        for job, _ in batch:
            job.began = job.began or start
        sequences = [job.sequences[index] for job, index in batch]
        try:  # whatever goes wrong, the thread goes on: without it nobody would be answered again
            outputs = outputs_of(batch[0][0].model, sequences)
        except Exception as error:
            self._tell({job: error for job, _ in batch})
            return
        ended: dict[_Job, Any] = {}
        for (job, index), one in zip(batch, outputs, strict=True):
            job.outputs[index] = one
            job.left -= 1
            if not job.left:
                job.ended = time.perf_counter()
                ended[job] = np.stack([value for value in job.outputs if value is not None])
        self._tell(ended)
        seconds = time.perf_counter() - start
        tokens = sum(map(len, sequences))
        self._rate += 0.1 * (tokens / seconds - self._rate)
        self._on_batch(BatchDone(len(batch), tokens, seconds, waited))

    def _tell(self, ended: dict[_Job, Any]) -> None:
        if ended:
            self._worker.call_back(_settle, ended)


def _settle(ended: dict[_Job, Any]) -> None:
    for job, outcome in ended.items():
        if job.done.done():  # its caller has left
            continue
        if isinstance(outcome, Exception):
            job.done.set_exception(outcome)
        else:
            job.done.set_result(outcome)
