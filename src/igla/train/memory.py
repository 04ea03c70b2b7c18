"""What the process does with memory while it trains."""

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_THRESHOLD_MAX = 32 << 20


@contextmanager
def steady_memory() -> Iterator[None]:
    """Steps that allocate the same again and again, without the cost of it.

    glibc gives large blocks back to the system as soon as they are freed, and the system clears
    every page that it lends again: from here on, and for the rest of the process, freed blocks are
    kept. And Python's search for cycles, which runs every few steps, leaves out what was there
    before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_MAX)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    try:
        # Not by getrusage, which on Linux counts the process that this one was forked from.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
