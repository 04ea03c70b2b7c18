"""Work in a process of its own that may be killed at any moment."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def forked(run: Callable[[], None]) -> Iterator[int]:
    """The id of a process that runs this, and does not outlive the block."""
    process = os.fork()
    if not process:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its parent
        try:
            run()
        finally:
            os._exit(1)
    try:
        yield process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
