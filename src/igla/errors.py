"""The one exception that stands for a user's mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError


class UserError(Exception):
    """Wrong input that the user can mend: shown as one sentence, exit status 2, no traceback.

    The message names what was found, where (file, row, field), and what to do about it.
    """


def first_fault(error: ValidationError | RequestValidationError, *passed_over: str) -> str:
    """The first thing that pydantic has found, as `field.part: what is wrong`, with no full stop.

    passed_over  parts of the place that say nothing to who reads it
    """
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"] if part not in passed_over)
    message = str(fault["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{where}: {message}" if where else message
