"""What is written to the log, and what is read from it."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from igla.gate.outcomes import Outcome

if TYPE_CHECKING:  # whose module loads torch, and a log needs none
    from igla.serve.decisions import Verdict

# Where feedback came from: the gate's own route, which the page uses too, Perspective's
# suggestscore, the command line, a file of an older log.
Source = Literal["gate", "perspective", "command", "import"]
Reason = Literal["erased", "expired", "withdrawn"]


def now() -> datetime:
    return datetime.now(UTC)


def new_id(kind: Literal["d", "f"]) -> str:
    """Of a decision or a feedback: 96 random bits, so that nobody can name what they were not
    told."""
    return f"{kind}_{secrets.token_hex(12)}"


@dataclass(frozen=True, kw_only=True)
class NewDecision:
    """A decision that was made.

    probability  of allow
    text         None where it is not to be kept; then there is no context either
    context      digest of the normalised text
    tool         name of the tool, of a tool call
    subject      whose text it is, as an opaque name, by which their records are erased
    slice        a part of the traffic that is measured on its own
    key          name of the API key, or ""
    """

    model: str
    version: str
    action: "Verdict"
    probability: float
    text: str | None
    context: str | None
    tool: str | None = None
    subject: str | None = None
    slice: str | None = None
    key: str = ""
    id: str = field(default_factory=lambda: new_id("d"))
    at: datetime = field(default_factory=now)


@dataclass(frozen=True, kw_only=True)
class NewFeedback:
    """What somebody says of a decision, or of a text.

    decision         id of the decision; None: of `text`
    who              who says it, as an opaque name; "": unknown
    idempotency_key  of one API key's feedback at most one has it; None: it is a new one for sure
    """

    outcome: Outcome
    decision: str | None = None
    text: str | None = None
    context: str | None = None
    model: str = "default"
    who: str = ""
    subject: str | None = None
    slice: str | None = None
    key: str = ""
    source: Source = "gate"
    idempotency_key: str | None = None
    id: str = field(default_factory=lambda: new_id("f"))
    at: datetime = field(default_factory=now)


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """Takes a feedback back. It stays in the log, and nothing more is learned from it."""

    feedback: str
    key: str = ""
    at: datetime = field(default_factory=now)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Anything else that the audit trail is to keep: never a text, never who a person is."""

    event: str
    actor: str
    facts: dict[str, Any]
    at: datetime = field(default_factory=now)


Entry = NewDecision | NewFeedback | Withdrawal | Event


@dataclass(frozen=True)
class Stored:
    """An entry that is in the log.

    id        of it; of an event, its number in the audit trail
    weight    of a feedback; otherwise 0
    repeated  whether it was there before, under the same idempotency key
    """

    id: str
    weight: int = 0
    repeated: bool = False


class NotStored(Exception):
    """An entry that the log refuses for good, or for now.

    kind  unknown: there is no such decision or feedback; conflict: the idempotency key was used
          for other content; capped: the key has given all it may for now; slices: it names one
          slice more than there may be
    wait  seconds after which it may be tried again, of capped
    """

    def __init__(
        self,
        kind: Literal["unknown", "conflict", "capped", "slices"],
        message: str,
        wait: float | None = None,
    ):
        super().__init__(message)
        self.kind = kind
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision of the log. See NewDecision.

    seq       its place; a cursor for reading on
    answered  whether feedback was given to it that still stands
    """

    seq: int
    id: str
    at: datetime
    model: str
    version: str
    action: "Verdict"
    probability: float
    text: str | None
    context: str | None
    tool: str | None
    subject: str | None
    slice: str | None
    key: str
    answered: bool


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """A feedback of the log that still stands. See NewFeedback.

    seq          its place; a cursor for reading on
    text         of the decision, where it is to one; None where it was not kept
    target       probability of allow that it teaches
    weight       as it was given, by outcome and repeats
    repeats      how often other decisions on the same context had the same outcome before
    version, action, probability, tool
                 of the decision; None of feedback to a text
    """

    seq: int
    id: str
    at: datetime
    decision: str | None
    model: str
    text: str | None
    context: str | None
    outcome: Outcome
    target: int
    weight: int
    repeats: int
    who: str
    key: str
    source: Source
    subject: str | None
    slice: str | None
    version: str | None
    action: "Verdict | None"
    probability: float | None
    tool: str | None


@dataclass(frozen=True)
class Gone:
    """A feedback that must no longer be used, wherever a copy of it is kept."""

    seq: int
    id: str
    at: datetime
    reason: Reason


@dataclass(frozen=True)
class AuditEntry:
    seq: int
    at: datetime
    event: str
    actor: str
    facts: dict[str, Any]
    digest: str
