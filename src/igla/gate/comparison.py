"""Shadow and A/B: a second version on the same traffic as the one that serves.

What is compared is noted in comparison.json in the gate's folder. The second version needs no copy
of the traffic: the learner scores the logged texts by both, behind the server, when feedback says
what was right. With a share above 0 it also answers that share of who asks.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from igla.errors import UserError
from igla.gate.home import Home
from igla.sealed import write_durably


@dataclass(frozen=True)
class Comparison:
    """Two versions that are compared.

    first   the one that serves; second, the other one
    share   of who asks, that the second one answers; 0: it is a shadow
    began   seconds since 1970; neither of the two has learned from feedback that came later
    """

    first: str
    second: str
    share: float
    began: float


def compare(home: Home, second: str, share: float) -> Comparison:
    """Begin to compare a version with the one that serves; UserError where it will not do."""
    serving = home.versions.serving().name
    if not 0 <= share <= 1:
        raise UserError(f"A share is between 0 and 1, not {share:g}.")
    if second == serving:
        raise UserError(f"{second} serves: compare another version with it.")
    home.versions.check(second)
    new = Comparison(serving, second, share, time.time())
    write_durably(home.comparison, json.dumps(asdict(new)) + "\n")
    return new


def compared(home: Home) -> Comparison | None:
    """What is compared now: nothing any more once another version has come to serve."""
    try:
        found = Comparison(**json.loads(home.comparison.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if home.versions.serving().name == found.first else None


def stop_comparing(home: Home) -> None:
    home.comparison.unlink(missing_ok=True)


def sticky(who: str, salt: str, share: float) -> bool:
    """Whether somebody belongs to the share that the second version answers: always the same in one
    comparison (by its salt), and in another one drawn anew."""
    drawn = hashlib.sha256(f"{salt}\n{who}".encode()).digest()[:8]
    return int.from_bytes(drawn) < share * 2**64


class Comparing:
    """The learner's part: it scores by both versions what feedback has come to.

    scikit-learn and the models are loaded only when there is something to compare.
    """

    def __init__(self, home: Home, block: int, guarded: bool):
        self.home = home
        self.block = block
        self.guarded = guarded
        self._of: Comparison | None = None
        # Of each feedback, whether the first version was right, and whether the second was.
        self._right: dict[str, tuple[bool, bool]] = {}

    def report(self, feedback: Sequence[Any]) -> dict[str, Any] | None:
        """What is known of the two versions by now; None where nothing is compared.

        feedback  all that stands, in its order (log.Feedback)
        """
        found = compared(self.home)
        if found is None:
            self._of = None
            return None
        try:
            return self._report(found, feedback)
        except UserError as error:  # one of the two is damaged: that stops no learning
            return {"fault": str(error)}

    def _report(self, found: Comparison, feedback: Sequence[Any]) -> dict[str, Any]:
        from igla.gate.beginning import block_cut, block_scores
        from igla.gate.compare import Paired, report
        from igla.infer.classifier import Classifier

        if found != self._of:
            versions = self.home.versions
            self._both = [
                Classifier.load(versions.check(name)) for name in (found.first, found.second)
            ]
            self._of, self._right = found, {}
        new = [
            one
            for one in feedback
            if one.id not in self._right
            and one.at.timestamp() >= found.began
            and one.text is not None
        ]
        if new:
            texts = [one.text for one in new]
            blocked = [
                block_scores(one, texts, self.block, guarded=self.guarded)
                >= block_cut(one.rule, self.block)
                for one in self._both
            ]
            for one, first, second in zip(new, *blocked, strict=True):
                right = one.target == 0
                self._right[one.id] = bool(first == right), bool(second == right)
        standing = {one.id for one in feedback}
        self._right = {name: right for name, right in self._right.items() if name in standing}
        return report(Paired.of(self._right.values()), found.first, found.second) | {
            "share": found.share
        }
