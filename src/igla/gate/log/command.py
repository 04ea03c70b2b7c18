"""What the commands of `igla gate` do with a log."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import get_args

from sqlalchemy.exc import DBAPIError

from igla.errors import UserError
from igla.gate.context import clean, digest, visible
from igla.gate.log import GateLog, NewFeedback, NotStored
from igla.gate.log.actor import at_command_line
from igla.gate.log.exporting import export
from igla.gate.log.importing import import_feedback
from igla.gate.log.records import now
from igla.gate.outcomes import MinusOne, outcome_of
from igla.terminal import plain_console


def print_status(url: str) -> None:
    """Print what is in a log, and whether its audit trail is whole; UserError when it is not."""
    with _log(url) as log:
        counts, fault, trail = log.counts(), log.audit_fault(), log.audit_end()
    print(f"log\t{log.database}")
    for kind, table in counts.items():
        for name, count in sorted(table.items()):
            print(f"{kind}\t{name}\t{count}")
    if fault is not None:
        raise UserError(fault)
    print(f"audit\t{trail.seq} entries\t{trail.digest}" if trail else "audit\tempty")


def give_feedback(url: str, words: list[str], text: str | None, who: str) -> None:
    """Write feedback straight into a log.

    words  a decision and the outcome; with a text, the outcome alone
    """
    *decisions, outcome = words
    if len(decisions) != (text is None):
        raise UserError("Give a decision and an outcome, or --text and an outcome.")
    if text is not None and not text.strip():
        raise UserError("--text is empty: write the text that was decided on.")
    decision = decisions[0] if decisions else None
    with _log(url) as log:
        (stored,) = log.write(
            [
                NewFeedback(
                    outcome=outcome_of(outcome),
                    decision=decision and clean(decision),
                    text=None if text is None else clean(text),
                    context=None if text is None else digest(text),
                    who=visible(who, 200),
                    source="command",
                )
            ]
        )
    if isinstance(stored, NotStored):
        raise UserError(str(stored))
    print(f"{stored.id}\tweight {stored.weight}")


def export_log(url: str, path: Path, what: str) -> None:
    """Write a log's records to a file, and say how many."""
    with _log(url) as log:
        count = export(log, path, what)
    plain_console(stderr=True).print(f"{count:,} rows of {what} in {path}")


def import_log(
    url: str,
    file: Path,
    minus_one: str,
    text_column: str | None,
    label_column: str | None,
    encoding: str | None,
) -> None:
    """Store the feedback of a file, and say how much of it is new; see import_feedback."""
    if minus_one not in get_args(MinusOne):
        raise UserError(f"--minus-one is {' or '.join(get_args(MinusOne))}, not {minus_one}.")
    with _log(url) as log:
        done = import_feedback(
            log,
            file,
            minus_one,  # type: ignore[arg-type]
            at_command_line(),
            text_column=text_column,
            label_column=label_column,
            encoding=encoding,
        )
    print(f"{done.stored:,} feedbacks stored, {done.known:,} were there")


def erase(url: str, person: str | None, older_than: str | None) -> None:
    """Erase one person's records, or old ones, and say how many."""
    if (person is None) == (older_than is None):
        raise UserError("Name --person, or --older-than; one of them.")
    with _log(url) as log:
        if person is not None:
            erased = log.erase_person(person, at_command_line())
        else:
            erased = log.erase_older(now() - _age(str(older_than)), at_command_line())
    print(f"{erased.decisions:,} decisions and {erased.feedback:,} feedbacks erased")


@contextmanager
def _log(url: str) -> Iterator[GateLog]:
    """The server's log. An empty one that is made would only hide that its name is wrong."""
    with closing(GateLog(url, make=False)) as log:
        try:
            yield log
        except DBAPIError as error:
            raise UserError(f"The log {log.database} fails: {str(error.orig).strip()}") from None


def _age(words: str) -> timedelta:
    """An age as 90d or 12h; UserError for any other word."""
    found = re.fullmatch(r"(\d+)([dh])", words)
    if found is None:
        raise UserError(f"--older-than is a number of days or hours, as 90d or 12h, not {words}.")
    number = int(found[1])
    try:
        return timedelta(days=number) if found[2] == "d" else timedelta(hours=number)
    except OverflowError:
        raise UserError(f"{words} is longer ago than there are dates.") from None
