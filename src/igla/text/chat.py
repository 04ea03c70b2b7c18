"""Conversations as tokens, and which of them the assistant has written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from igla.errors import UserError
from igla.text.template import ChatTemplate, Messages, Tools

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Turns:
    """A conversation.

    ids      [T] its tokens
    learned  [T] bool, those that the assistant has written
    torn     tokens that begin before a turn of the assistant and end inside it, or begin inside and
             end after it: they are not learned
    """

    ids: np.ndarray
    learned: np.ndarray
    torn: int


def fault_of(messages: Any) -> str | None:
    """Why something is no conversation to learn from, or None."""
    if not isinstance(messages, list | tuple) or not messages:
        return "it holds no messages"
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return "a message has no role"
        if message["role"] not in ROLES:
            return f"the role '{message['role']}' is unknown; there are {', '.join(ROLES)}"
        calls = message["role"] == "assistant" and message.get("tool_calls")
        if not isinstance(message.get("content"), str) and not (
            calls and message.get("content") is None
        ):
            return f"the content of a message of '{message['role']}' is no text"
    if not any(
        one["role"] == "assistant" and (one.get("tool_calls") or one["content"].strip())
        for one in messages
    ):
        return "it has no turn of the assistant"
    return None


def encode_turns(
    conversations: Sequence[tuple[Messages, Tools]], template: ChatTemplate, tokenizer: Tokenizer
) -> Iterator[Turns | str]:
    """Each conversation's tokens, or why the template does not take it."""
    rendered: list[tuple[str, list[tuple[int, int]]] | str] = []
    for messages, tools in conversations:
        try:
            rendered.append(template.spans(messages, tools))
        except UserError as error:
            rendered.append(str(error))
    texts = [one[0] for one in rendered if not isinstance(one, str)]
    # The template has written the special tokens.
    encodings = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    for one in rendered:
        yield one if isinstance(one, str) else _turns(next(encodings), one[1])


def _turns(encoding: Encoding, spans: Sequence[tuple[int, int]]) -> Turns:
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    begin, end = offsets[:, 0], offsets[:, 1]
    learned = np.zeros(len(offsets), dtype=bool)
    torn = 0
    for start, stop in spans:
        touches = (begin < stop) & (end > start)
        inside = touches & (begin >= start) & (end <= stop)
        learned |= inside
        torn += int((touches & ~inside).sum())
    return Turns(np.array(encoding.ids, dtype=np.int64), learned, torn)
