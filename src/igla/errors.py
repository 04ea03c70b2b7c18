"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """Wrong input that the user can mend: shown as one sentence, exit status 2, no traceback.

    The message names what was found, where (file, row, field), and what to do about it.
    """
