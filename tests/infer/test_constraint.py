"""Random texts under a grammar: they keep to it, and what cannot be followed is said."""

import json
import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from igla.errors import UserError
from igla.infer.constraint import Constraint, Grammars
from igla.infer.decoding import Autoregressive
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.simulated import SimulatedBackend

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["да", "нет"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    made.train_from_iterator([json.dumps(SCHEMA)] * 3, trainer)
    return made


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    # The model has more logits than the tokenizer has tokens, as padded vocabularies do.
    return Grammars(tokenizer, [tokenizer.token_to_id("<end>")], 320)


def generate(tokenizer: Tokenizer, constraint: Constraint, seed: int) -> tuple[str, str]:
    """A text by an engine that likes all 320 tokens alike."""
    scheduler = Scheduler(SimulatedBackend(320, distribution=lambda seen: np.zeros(320)))
    sampling = Sampling(temperature=1.0, seed=seed)
    scheduler.submit(
        [1],
        [Autoregressive(sampling, constraint)],
        max_tokens=400,
        stop_tokens=[tokenizer.token_to_id("<end>")],
    )
    tokens, reason = [], None
    while not scheduler.idle:
        for one in scheduler.step():
            tokens += [new.token for new in one.tokens]
            reason = one.finished
    return tokenizer.decode(tokens), str(reason)


def test_every_text_is_json_of_the_schema(tokenizer: Tokenizer, grammars: Grammars) -> None:
    for seed in range(8):
        text, reason = generate(tokenizer, grammars.json_schema(SCHEMA), seed)
        assert reason == "stop"
        content = json.loads(text)
        assert set(content) == {"name", "age", "tags"}
        assert len(content["name"]) <= 6 and 0 <= content["age"] <= 99
        assert set(content["tags"]) <= {"да", "нет"} and len(content["tags"]) <= 2


def test_every_text_matches_the_pattern(tokenizer: Tokenizer, grammars: Grammars) -> None:
    pattern = r"(да|нет), [0-9]{2,4}(\.[0-9])?"
    found = {generate(tokenizer, grammars.regex(pattern), seed) for seed in range(8)}
    assert all(re.fullmatch(pattern, text) and reason == "stop" for text, reason in found)
    assert len(found) > 4


def test_tokens_beyond_the_tokenizer_are_never_allowed(grammars: Grammars) -> None:
    allowed = grammars.json_object().allowed(320)
    assert not allowed[300:].any() and allowed.any()
    assert torch.equal(grammars.json_object().masked(torch.zeros(330)).isfinite()[:320], allowed)


def test_a_copy_goes_its_own_way(tokenizer: Tokenizer, grammars: Grammars) -> None:
    first = grammars.regex("ab|ac")
    [a, b, c] = (tokenizer.token_to_id(letter) for letter in "abc")
    first.advance(a)
    second = first.copy()
    first.advance(b)
    second.advance(c)
    assert first.complete and second.complete
    with pytest.raises(ValueError, match="breaks the grammar"):
        grammars.regex("ab").advance(c)


def test_a_grammar_that_is_found_too_large_on_the_way_is_a_users_mistake(
    tokenizer: Tokenizer, grammars: Grammars
) -> None:
    huge = grammars.regex("a{100000}{100000}")
    with pytest.raises(UserError, match="cannot be followed: lexer error: too many expressions"):
        for _ in range(50):
            huge.allowed(320)
            huge.advance(tokenizer.token_to_id("a"))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda grammars: grammars.json_schema("{"), "The JSON schema is not JSON"),
        (lambda grammars: grammars.json_schema({"type": "beast"}), "cannot be followed"),
        (lambda grammars: grammars.regex("(a"), "The regular expression cannot be followed"),
    ],
)
def test_a_grammar_that_is_none_is_a_users_mistake(
    grammars: Grammars, make: object, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        make(grammars)
