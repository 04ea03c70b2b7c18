"""What an operator does with a gate. Each act is in the audit trail.

It is done first and noted then, since a rollback is not to wait for a disk that is full: where the
log cannot be written, its DBAPIError tells that the act stands and the trail does not say so.
"""

from igla.gate.comparison import Comparison, compare, compared
from igla.gate.comparison import stop_comparing as stop
from igla.gate.home import Home
from igla.gate.log import GateLog
from igla.gate.versions import Damaged


def roll_back(home: Home, log: GateLog, actor: str, to: str | None = None) -> str:
    """Let the former version serve again, or the one named; its name."""
    before = _serving(home)
    after = home.versions.rollback(actor, to)
    log.note("rolled_back", actor, before=before, after=after)
    return after


def promote(home: Home, log: GateLog, actor: str, version: str) -> str:
    """Let a version serve, one that was rejected too; its name."""
    before = _serving(home)
    home.versions.promote(version, actor)
    log.note("promoted", actor, before=before, after=version)
    return version


def begin_comparing(home: Home, log: GateLog, actor: str, version: str, share: float) -> Comparison:
    """Compare a version with the one that serves, on the feedback from now on; it answers that
    share of who asks."""
    begun = compare(home, version, share)
    log.note("comparison_begun", actor, first=begun.first, second=version, share=share)
    return begun


def stop_comparing(home: Home, log: GateLog, actor: str) -> None:
    """Let the version that serves answer everybody again."""
    ended = compared(home)
    stop(home)
    if ended is not None:
        log.note("comparison_ended", actor, first=ended.first, second=ended.second)


def ask_for_a_round(home: Home, log: GateLog, actor: str) -> None:
    """Let the learner begin a round with whatever feedback is new."""
    home.asked.touch()
    log.note("round_asked", actor)


def _serving(home: Home) -> str | None:
    """The version that serves; None where the pointer is damaged, which these acts mend."""
    try:
        return home.versions.serving().name
    except Damaged:
        return None
