"""What OpenAI's clients are answered when texts are written for them."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from igla.infer.decoding import Decided
from igla.infer.scheduler import Reason
from igla.serve.models import Served
from igla.serve.writing import Piece


@dataclass
class Written:
    """A continuation, whole."""

    text: str = ""
    tokens: list[Decided] = field(default_factory=list)
    finished: Reason | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens += piece.tokens
        self.finished = piece.finished


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class Completions:
    """The shapes of /v1/completions."""

    whole = part = "text_completion"
    prefix = "cmpl"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool):
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._lengths: dict[int, int] = {}  # letters of the tokens told so far

    def opening(self, index: int) -> dict[str, Any] | None:
        return None

    def choice(self, index: int, written: Written) -> dict[str, Any]:
        told = self._told(index, written.tokens) if self._logprobs else None
        return {
            "index": index,
            "text": written.text,
            "logprobs": told,
            "finish_reason": written.finished,
        }

    chunk = choice

    def _told(self, index: int, tokens: Sequence[Decided]) -> dict[str, Any]:
        names = [spelt(self._tokenizer, decided.token) for decided in tokens]
        offsets, place = [], self._lengths.get(index, 0)
        for name in names:
            offsets.append(place)
            place += len(name)
        self._lengths[index] = place
        return {
            "tokens": names,
            "token_logprobs": [decided.logprob for decided in tokens],
            "top_logprobs": [
                {spelt(self._tokenizer, token): value for token, value in decided.alternatives}
                for decided in tokens
            ],
            "text_offset": offsets,
        }


class Chat:
    """The shapes of /v1/chat/completions."""

    whole, part = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool):
        self._tokenizer = tokenizer
        self._logprobs = logprobs

    def opening(self, index: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def choice(self, index: int, written: Written) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": written.text, "refusal": None},
            "logprobs": self._told(written.tokens),
            "finish_reason": written.finished,
        }

    def chunk(self, index: int, written: Written) -> dict[str, Any]:
        return {
            "index": index,
            "delta": {"content": written.text} if written.text or not written.finished else {},
            "logprobs": self._told(written.tokens),
            "finish_reason": written.finished,
        }

    def _told(self, tokens: Sequence[Decided]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        content = [
            self._one(decided.token, decided.logprob)
            | {"top_logprobs": [self._one(*pair) for pair in decided.alternatives]}
            for decided in tokens
        ]
        return {"content": content, "refusal": None}

    def _one(self, token: int, logprob: float | None) -> dict[str, Any]:
        name = spelt(self._tokenizer, token)
        return {"token": name, "logprob": logprob, "bytes": list(name.encode())}


class Envelope:
    """What all parts of an answer have in common."""

    def __init__(self, served: Served, shape: Completions | Chat):
        self._shape = shape
        self._common = {
            "id": f"{shape.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": f"{served.name}/{served.version}",
            "system_fingerprint": f"igla-{served.version}",
        }

    def whole(self, choices: Sequence[dict[str, Any]], used: dict[str, int]) -> dict[str, Any]:
        return {
            **self._common,
            "object": self._shape.whole,
            "choices": list(choices),
            "usage": used,
        }

    def part(
        self, choices: Sequence[dict[str, Any]], used: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """A piece of a stream; its usage comes with the last one, which has no choices."""
        content = {**self._common, "object": self._shape.part, "choices": list(choices)}
        return content if used is None else {**content, "usage": used}


def spelt(tokenizer: Tokenizer, token: int) -> str:
    """A token by itself; what is no whole letter comes as �, as from OpenAI."""
    return tokenizer.decode([token], skip_special_tokens=False)
