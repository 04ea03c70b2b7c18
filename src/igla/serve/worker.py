"""A thread beside an event loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any


class Worker:
    """A thread that works for callers in the event loop that it was started in.

    work     what it does, until it is closing and nothing is left
    changed  guards what the thread and its callers share; notified when there is more to do
    closing  nothing more is accepted; guarded by `changed`
    """

    def __init__(self, name: str, work: Callable[[], None]):
        self.changed = threading.Condition()
        self.closing = False
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """To be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """Let it finish what was accepted, and end."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        await asyncio.to_thread(self._thread.join)

    def call_back(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have the event loop call a function; for the thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *arguments)
