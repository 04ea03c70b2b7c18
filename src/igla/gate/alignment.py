"""How well the gate's decisions agree with what people say of them, as it goes on."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import log
from typing import Any

from igla.gate.log.records import Feedback

# Of the exponential mean of the loss: the newest feedback counts for so much.
ALPHA = 0.01
# Converged: so large a share of so many decisions, the latest, was as people would have it.
CONVERGED, DECISIONS = 0.95, 1000
# Keeps the logarithm of a probability that was rounded to 0 finite.
_LEAST = 1e-15
# The trend: the mean of so many losses against the mean of as many before.
LATELY = 10
# Slices with a course of their own; tools are named by clients too, and as many as they like.
SLICES, OTHERS = 200, "all others"


@dataclass
class Course:
    """Agreement and loss of a stream of feedback.

    The loss is −log of the probability that the version which decided gave to what is right; of
    feedback to a text that was not decided on there is none.
    """

    heard: int = 0
    agreed: int = 0
    mean_loss: float | None = None
    latest: deque[bool] = field(default_factory=lambda: deque(maxlen=DECISIONS))
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=2 * LATELY))

    def add(self, agrees: bool, loss: float | None) -> None:
        self.heard += 1
        self.agreed += agrees
        self.latest.append(agrees)
        if loss is None:
            return
        self.losses.append(loss)
        mean = loss if self.mean_loss is None else self.mean_loss
        self.mean_loss = mean + ALPHA * (loss - mean)

    @property
    def alignment(self) -> float | None:
        """Share of the latest decisions, DECISIONS at most, that people agree with."""
        return sum(self.latest) / len(self.latest) if self.latest else None

    @property
    def converged(self) -> bool:
        return len(self.latest) == DECISIONS and sum(self.latest) >= CONVERGED * DECISIONS

    @property
    def trend(self) -> float | None:
        """Mean of the last ten losses less the mean of the ten before; below 0 it falls."""
        if len(self.losses) < 2 * LATELY:
            return None
        losses = list(self.losses)
        return (sum(losses[LATELY:]) - sum(losses[:LATELY])) / LATELY

    def as_json(self) -> dict[str, Any]:
        return {
            "heard": self.heard,
            "alignment": self.alignment,
            "converged": self.converged,
            "mean_loss": self.mean_loss,
            "trend": self.trend,
        }


@dataclass
class Alignment:
    """The course of all feedback, and of its parts: by slice, and by what is right."""

    whole: Course = field(default_factory=Course)
    slices: dict[str, Course] = field(default_factory=dict)
    labels: dict[str, Course] = field(default_factory=dict)

    def add(self, feedback: Iterable[Feedback], slice_of: Callable[[str, str | None], str]) -> None:
        """Feedback in its order.

        slice_of  from a text and the slice that it was given to the name of its slice
        """
        for one in feedback:
            agrees, loss = agreement(one), loss_of(one)
            name = slice_of(one.text or "", one.slice)
            if name not in self.slices and len(self.slices) >= SLICES:
                name = OTHERS
            label = "allow" if one.target else "block"
            for course in (
                self.whole,
                self.slices.setdefault(name, Course()),
                self.labels.setdefault(label, Course()),
            ):
                course.add(agrees, loss)

    def as_json(self) -> dict[str, Any]:
        return self.whole.as_json() | {
            "slices": {name: course.as_json() for name, course in sorted(self.slices.items())},
            "labels": {name: course.as_json() for name, course in sorted(self.labels.items())},
        }


def agreement(feedback: Feedback) -> bool:
    """Whether the decision was what people would have: by what was done, where that was to allow or
    to block; of what was left to a person, and of a text alone, by the word of who has seen it."""
    if feedback.action in ("allow", "block"):
        return (feedback.action == "allow") == bool(feedback.target)
    return not (feedback.outcome.wrong or feedback.outcome.override)


def loss_of(feedback: Feedback) -> float | None:
    """−log of the probability that was given to what is right."""
    if feedback.probability is None:
        return None
    right = feedback.probability if feedback.target else 1 - feedback.probability
    return -log(max(right, _LEAST))
