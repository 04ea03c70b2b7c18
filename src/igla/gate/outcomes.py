"""What a person says of a decision, and what the model is to learn from it.

An outcome is a target in {0, 1}, which is the probability of *allow*, and a weight. The weight
belongs to the example and is never read off the target. No number outside [0, 1] is ever a target
of a cross-entropy, which would be unbounded below.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from igla.errors import UserError

if TYPE_CHECKING:  # whose module loads torch, and a client needs none
    from igla.serve.decisions import Verdict


class Outcome(StrEnum):
    """What became of a decision.

    confirmed_allow, confirmed_block  the decision was right
    wrongly_blocked                   it should have been allowed
    wrongly_allowed                   it should have been blocked
    override_allow, override_block    the user has it otherwise, whether the decision was right or
                                      not
    """

    CONFIRMED_ALLOW = "confirmed_allow"
    CONFIRMED_BLOCK = "confirmed_block"
    WRONGLY_BLOCKED = "wrongly_blocked"
    WRONGLY_ALLOWED = "wrongly_allowed"
    OVERRIDE_ALLOW = "override_allow"
    OVERRIDE_BLOCK = "override_block"

    @property
    def target(self) -> Literal[0, 1]:
        """1: to be allowed; 0: to be blocked."""
        return 1 if self in _TO_ALLOW else 0

    @property
    def wrong(self) -> bool:
        """Whether it says that the decision was wrong."""
        return self in (Outcome.WRONGLY_BLOCKED, Outcome.WRONGLY_ALLOWED)

    @property
    def override(self) -> bool:
        """Whether the user has put a will of their own in place of the decision."""
        return self in (Outcome.OVERRIDE_ALLOW, Outcome.OVERRIDE_BLOCK)

    def weight(self, repeats: int = 0) -> int:
        """How much an example counts: 1; of an override 2; of a wrong decision 4, 6 the second
        time and 8 from the third on.

        repeats  how often the same outcome was given before for the same normalised context
        """
        if self.wrong:
            return _WRONG[min(repeats, len(_WRONG) - 1)]
        return 2 if self.override else 1


_TO_ALLOW = (Outcome.CONFIRMED_ALLOW, Outcome.WRONGLY_BLOCKED, Outcome.OVERRIDE_ALLOW)
_WRONG = (4, 6, 8)


def judged(action: "Verdict", allow: bool) -> Outcome:
    """What it means that a person, shown a decision, would allow the matter or not. Where the gate
    had called for a person, that person's word is no error of the gate's."""
    if allow:
        return Outcome.WRONGLY_BLOCKED if action == "block" else Outcome.CONFIRMED_ALLOW
    return Outcome.WRONGLY_ALLOWED if action == "allow" else Outcome.CONFIRMED_BLOCK


# What −1 of the older format stands for: there it was called a false positive, and clamped to 0.
MinusOne = Literal["wrongly_allowed", "wrongly_blocked"]
_NUMBERS = {
    1.0: Outcome.CONFIRMED_ALLOW,
    0.0: Outcome.CONFIRMED_BLOCK,
    1.5: Outcome.OVERRIDE_ALLOW,
    -0.5: Outcome.OVERRIDE_BLOCK,
}


def outcome_of_number(value: float, minus_one: MinusOne = "wrongly_allowed") -> Outcome:
    """The outcome that a numeric label of the older format stands for; UserError for any other
    number.

    minus_one  what −1.0 means in the log at hand
    """
    if value == -1.0:
        return Outcome(minus_one)
    if value not in _NUMBERS:
        known = ", ".join(f"{one:g}" for one in (*_NUMBERS, -1.0))
        raise UserError(f"The label {value:g} stands for no outcome; there are {known}.")
    return _NUMBERS[value]


def outcome_of(word: str, minus_one: MinusOne = "wrongly_allowed") -> Outcome:
    """The outcome of a name, or of a number of the older format; UserError for any other word."""
    name = word.strip().casefold()
    if name in [*Outcome]:
        return Outcome(name)
    try:
        value = float(name)
    except ValueError:
        raise UserError(f"There is no outcome {word!r}; there are {', '.join(Outcome)}.") from None
    return outcome_of_number(value, minus_one)
