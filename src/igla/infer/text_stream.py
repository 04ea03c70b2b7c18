"""Tokens to text as they come: no broken letters, and stop strings wherever tokens part them."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """The text of one sequence.

    stop  strings that end it; none of their letters is ever given out

    What may be the beginning of a stop string is held back until it is certain.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), prompt: Sequence[int] = ()):
        self._tokenizer = tokenizer
        # With the prompt's tokens it knows that the first new word follows another.
        self._decoder = DecodeStream(ids=[*prompt], skip_special_tokens=True)
        self._stop = [one for one in stop if one]
        self._held = ""
        self.stopped_by: str | None = None

    def push(self, token: int) -> str:
        """Take a token; returns the text that is certain now, often none."""
        if self.stopped_by is not None:
            return ""
        self._held += self._decoder.step(self._tokenizer, token) or ""
        places = [(self._held.find(one), one) for one in self._stop]
        found = [(place, -len(one), one) for place, one in places if place >= 0]
        if found:
            place, _, self.stopped_by = min(found)
            given, self._held = self._held[:place], ""
            return given
        keep = max((_overlap(self._held, one) for one in self._stop), default=0)
        certain = len(self._held) - keep
        given, self._held = self._held[:certain], self._held[certain:]
        return given

    def finish(self) -> str:
        """What was held back, when no more tokens come."""
        given, self._held = self._held, ""
        return given


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of the text begin the stop string."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
