"""What the learner knows of the log: it reads on from where it was, and is never told twice."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from igla.gate.alignment import Alignment, agreement
from igla.gate.drift import Drift
from igla.gate.home import Home
from igla.gate.log import Feedback, GateLog
from igla.gate.material import slice_of
from igla.text.tokenizer import load_tokenizer

# Feedback that is held, and learned from; of a longer log the latest.
WINDOW = 50_000


@dataclass
class Attention:
    """Feedback that stands, and what follows from it and from the decisions.

    model  name of the one that learns; what is of others is not read
    drift  of what the serving version has decided; begins anew with each version
    """

    log: GateLog
    home: Home
    model: str = "default"
    feedback: list[Feedback] = field(default_factory=list)
    alignment: Alignment = field(default_factory=Alignment)
    drift: Drift = field(default_factory=Drift)
    serving: str = ""
    _since: int = 0
    _read: int = 0
    _gone: int = 0
    _decided: int = 0

    def read(self) -> None:
        """Read on; DBAPIError when the log cannot be read."""
        serving = self.home.versions.serving().name
        if serving != self.serving:
            self.serving, self.drift, self._since = serving, Drift(), self._read
            self._tokenizer = load_tokenizer(self.home.versions.path(serving))
        self._forget()
        while more := self.log.feedback_since(self._read, model=self.model):
            self._read = more[-1].seq
            self.feedback = [*self.feedback, *more][-WINDOW:]
            self._count(more)
        while decided := self.log.decisions(self._decided, version=serving, model=self.model):
            self._decided = decided[-1].seq
            texts = [decision.text or "" for decision in decided]
            for decision, tokens in zip(decided, self._tokens(texts), strict=True):
                self.drift.decided(decision.probability, tokens)

    def new(self, after: int = 0) -> int:
        """Feedback from behind a number that no version has learned from, whatever became of it."""
        tried = max(after, self.home.versions.tried())
        return sum(one.seq > tried and one.text is not None for one in self.feedback)

    def unanswered(self, since: datetime) -> Iterator[str]:
        """The texts of the model's decisions since a moment to which nobody has said anything."""
        return self.log.unanswered(since, self.model)

    def elsewhere(self, until: int) -> int:
        """How much feedback up to a number is of other models."""
        return self.log.feedback_of_others(self.model, until)

    def erased(self) -> bool:
        """Whether something was erased or has expired since it was last read on."""
        return any(one.reason != "withdrawn" for one in self.log.gone_since(self._gone))

    def _forget(self) -> None:
        """Drop what was withdrawn or erased, and count what stands of the feedback that is held."""
        gone = self.log.gone_since(self._gone)
        if not gone:
            return
        self._gone = gone[-1].seq
        if not self._read:  # and so nothing of it was counted
            return
        names = {one.id for one in gone}
        self.feedback = [one for one in self.feedback if one.id not in names]
        self.alignment = Alignment()
        self.drift.forget_heard()
        self._count(self.feedback)

    def _count(self, feedback: list[Feedback]) -> None:
        self.alignment.add(feedback, slice_of)
        for one in feedback:
            if one.seq > self._since and one.version in (None, self.serving):
                self.drift.heard(agreement(one))

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [one.ids for one in encoded]
