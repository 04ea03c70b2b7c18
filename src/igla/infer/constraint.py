"""Texts held to a JSON schema or a regular expression, by llguidance (Microsoft).

At each step the grammar says which tokens may follow; the others' logits become -∞. The automaton
works on bytes, so a string may be parted into tokens in any way.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer
from torch import Tensor

from igla.errors import UserError


class Grammars:
    """Makes constraints over one vocabulary.

    end  tokens that end a text: allowed where a text is complete
    """

    def __init__(self, tokenizer: Tokenizer, end: Collection[int], vocab_size: int | None = None):
        known = tokenizer.get_vocab_size()
        # Some models have more logits than their tokenizer has tokens; llguidance wants to know.
        size = max(known, vocab_size or 0)
        self._tokenizer = LLTokenizer(tokenizer.to_str(), n_vocab=size, eos_token=[*end] or None)

    def json_schema(self, schema: Mapping[str, Any] | bool | str) -> "Constraint":
        """Texts that are JSON of a schema."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        try:
            json.loads(text)
        except ValueError as error:
            raise UserError(f"The JSON schema is not JSON ({error}).") from None
        return self._constraint(LLMatcher.grammar_from_json_schema(text), "JSON schema")

    def json_object(self) -> "Constraint":
        """Texts that are any JSON object."""
        return self.json_schema({"type": "object"})

    def regex(self, pattern: str) -> "Constraint":
        """Texts that a pattern matches from beginning to end (Rust's syntax)."""
        return self._constraint(LLMatcher.grammar_from_regex(pattern), "regular expression")

    def _constraint(self, grammar: str, kind: str) -> "Constraint":
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise UserError(f"The {kind} cannot be followed: {_reason(matcher.get_error())}.")
        return Constraint(matcher)


class Constraint:
    """Where one text stands in its grammar."""

    def __init__(self, matcher: LLMatcher):
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Whether the text is whole and nothing can follow."""
        return bool(self._matcher.is_stopped())

    def copy(self) -> "Constraint":
        """One of its own, for a second continuation."""
        return Constraint(self._matcher.deep_copy())

    def allowed(self, vocab_size: int) -> Tensor:
        """[V] bool, which tokens may follow."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[:vocab_size]
        return torch.from_numpy(bits.view(np.bool_))

    def masked(self, logits_V: Tensor) -> Tensor:
        """Logits with -∞ for what may not follow."""
        allowed_V = self.allowed(len(logits_V))
        beyond = len(logits_V) - len(allowed_V)
        if beyond:
            allowed_V = torch.cat([allowed_V, torch.zeros(beyond, dtype=torch.bool)])
        return logits_V.masked_fill(~allowed_V, -torch.inf)

    def advance(self, token: int) -> None:
        """The text has gained a token, an allowed one.

        UserError where the grammar turns out too large: its automaton is made as the text goes.
        """
        if self._matcher.consume_token(token):
            return
        error = self._matcher.get_error()
        if error.startswith("lexer error: "):
            raise UserError(f"The form that is asked for cannot be followed: {_reason(error)}.")
        raise ValueError(f"token {token} breaks the grammar: {error}")


def _reason(error: str) -> str:
    """The line that says what is wrong; around it an expression is drawn with where."""
    lines = error.strip().splitlines() or ["no reason given"]
    named = [line for line in lines if line.startswith("error: ")]
    return (named or lines)[0].removeprefix("error: ").rstrip(".")
