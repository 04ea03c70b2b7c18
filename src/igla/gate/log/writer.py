"""One thread that writes to the log for everybody: many acknowledgements to a commit.

While a commit is on its way to the disk, what others want written gathers; the next commit takes
all of it. There is no timer, as there is none for batches of the model.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from igla.gate.log import GateLog
from igla.gate.log.records import Entry, Stored
from igla.serve.worker import Worker

# Entries of one commit, and those that may wait for theirs.
_MOST_TOGETHER = 500
_MOST_WAITING = 10_000


class NotLogged(Exception):
    """The log could not be written: nothing of the entry is acknowledged. The message says why."""


@dataclass(frozen=True)
class Commit:
    """What is told of a commit: its entries, the seconds it took, and why it failed, if it did."""

    entries: int
    seconds: float
    failed: str | None


@dataclass(eq=False)
class _Job:
    entry: Entry
    done: "asyncio.Future[Stored]"


class Writer:
    """Writes entries for callers in the event loop that it was started in.

    on_commit  is told of each commit, in the writing thread
    """

    def __init__(self, log: GateLog, on_commit: Callable[[Commit], None]):
        self._log = log
        self._on_commit = on_commit
        self._waiting: deque[_Job] = deque()
        self._worker = Worker("log", self._work)

    def start(self) -> None:
        """To be called in the event loop."""
        self._worker.start()

    async def write(self, entry: Entry, seconds: float) -> Stored:
        """Returns when the entry is on the disk.

        NotStored when the log refuses it. NotLogged when it could not be written within so many
        seconds; then it may be in the log or not, and asking again with the same idempotency key
        stores it once.
        """
        job = _Job(entry, asyncio.get_running_loop().create_future())
        with self._worker.changed:
            if self._worker.closing:
                raise NotLogged("The server is shutting down.")
            if len(self._waiting) >= _MOST_WAITING:
                raise NotLogged("The log does not keep up.")
            self._waiting.append(job)
            self._worker.changed.notify()
        try:
            async with asyncio.timeout(seconds):
                return await job.done
        except TimeoutError:
            raise NotLogged(f"The log was not written within {seconds:g} s.") from None

    async def close(self) -> None:
        """Write what was accepted, then end the thread."""
        await self._worker.close()

    def _work(self) -> None:
        while jobs := self._take():
            start = time.perf_counter()
            outcomes, failed = self._commit(jobs)
            self._worker.call_back(_settle, jobs, outcomes)
            self._on_commit(Commit(len(jobs), time.perf_counter() - start, failed))

    def _take(self) -> list[_Job]:
        """What waits, waited for; empty when the writer closes and nothing is left."""
        with self._worker.changed:
            while True:
                jobs: list[_Job] = []
                while self._waiting and len(jobs) < _MOST_TOGETHER:
                    job = self._waiting.popleft()
                    if not job.done.done():  # its caller has left
                        jobs.append(job)
                if jobs or self._worker.closing:
                    return jobs
                self._worker.changed.wait()

    def _commit(self, jobs: list[_Job]) -> tuple[list[Stored | Exception], str | None]:
        """Whatever goes wrong, the thread goes on: without it nobody would be answered again."""
        try:
            return [*self._log.write([job.entry for job in jobs])], None
        except (DataError, IntegrityError) as error:
            if len(jobs) > 1:  # one of them; it must not keep the others out
                each = [self._commit([job]) for job in jobs]
                return [outcome for (outcome,), _ in each], None
            why = str(error.orig).strip().splitlines()[0]
        except DBAPIError as error:
            why = str(error.orig).strip().splitlines()[0]
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        return [NotLogged(f"The log cannot be written ({why}).") for _ in jobs], why


def _settle(jobs: list[_Job], outcomes: list[Stored | Exception]) -> None:
    for job, outcome in zip(jobs, outcomes, strict=True):
        if job.done.done():  # its caller has left
            continue
        if isinstance(outcome, Exception):
            job.done.set_exception(outcome)
        else:
            job.done.set_result(outcome)
