"""Ctrl-C and SIGTERM as a wish, not a blow."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Counts the signals while a run is on.

    After the first the step is finished and saved. A second one saves between micro-batches, with
    the gradients summed so far.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._count = 0
        self._former: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        return self._count >= 1

    def urgent(self) -> bool:
        return self._count >= 2

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._say("stopping after this step (once more: after this micro-batch)…")

    def __enter__(self) -> "Interrupts":
        # Only the main thread may set handlers; in another, a training cannot be signalled.
        for number in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            self._former[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
