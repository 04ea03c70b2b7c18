"""What a server's process begins with, before its libraries are imported."""

import gc

from igla.serve.language import read_tables


def begin() -> None:
    """Read in a thread what takes long to read; and search nothing for cycles until the server is
    ready (`settle`): importing torch and FastAPI leaves half a million objects, which would be gone
    through again and again, 0.4 s in all."""
    gc.disable()
    read_tables()


def settle() -> None:
    """What is there now stays, and is not searched again; what comes from now on is."""
    gc.freeze()
    gc.enable()
