"""The terminal."""

from rich.console import Console


def plain_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints lines as they are: neither wrapped nor coloured nor parsed."""
    return Console(stderr=stderr, quiet=quiet, soft_wrap=True, highlight=False, markup=False)
