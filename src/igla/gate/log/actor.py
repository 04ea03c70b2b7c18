"""Who does what the audit trail notes."""

import getpass
import os


def at_command_line() -> str:
    """Who is at the command line, for the audit trail; by number where there is no name, as in a
    container."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}"
    return f"command line, {name}"
