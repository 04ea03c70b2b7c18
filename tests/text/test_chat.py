"""Conversations as text and tokens, and what in them is the assistant's."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from igla.errors import UserError
from igla.text.chat import Turns, encode_turns, fault_of
from igla.text.template import CHATML, ChatTemplate
from igla.text.tokenizer import train_tokenizer

TALK = [
    {"role": "system", "content": "Отвечай коротко."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "А 3 + 3?\nИ 1?"},
    {"role": "assistant", "content": "6 и 1 🦓 <b>"},
]
# ChatML as others write it, without marks of what is the assistant's.
UNMARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>'"
    " + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ["Отвечай коротко.", "2 + 2 4", "А 3 + 3? И 1? 6 и 1", "user assistant system"] * 5
    return train_tokenizer("byte_bpe", texts, vocab_size=300, lowercase=False)


def test_chatml_is_written_as_others_write_it() -> None:
    for count in range(1, len(TALK) + 1):
        for prompt in (False, True):
            ours = ChatTemplate(CHATML).render(TALK[:count], prompt=prompt)
            assert ours == ChatTemplate(UNMARKED).render(TALK[:count], prompt=prompt)


@pytest.mark.parametrize("source", [CHATML, UNMARKED], ids=["by marks", "by prefixes"])
def test_the_assistants_turns_are_found_exactly(source: str) -> None:
    text, spans = ChatTemplate(source).spans(TALK)
    assert text == ChatTemplate(UNMARKED).render(TALK)
    assert [text[start:end] for start, end in spans] == [
        "4<|im_end|>",
        "6 и 1 🦓 <b><|im_end|>",
    ]


@pytest.mark.parametrize("source", [CHATML, UNMARKED], ids=["by marks", "by prefixes"])
def test_the_tokens_that_are_learned_are_those_of_the_assistant(
    source: str, tokenizer: Tokenizer
) -> None:
    (turns,) = encode_turns([(TALK, None)], ChatTemplate(source), tokenizer)
    assert isinstance(turns, Turns) and turns.torn == 0
    learned = tokenizer.decode(turns.ids[turns.learned].tolist(), skip_special_tokens=False)
    assert learned == "4<|im_end|>6 и 1 🦓 <b><|im_end|>"
    whole = tokenizer.decode(turns.ids.tolist(), skip_special_tokens=False)
    assert whole == ChatTemplate(source).render(TALK)
    # A prompt is read as it was in training.
    prompt = tokenizer.encode(ChatTemplate(source).prompt(TALK[:2]), add_special_tokens=False).ids
    assert turns.ids[: len(prompt)].tolist() == prompt and turns.learned[len(prompt)]


def test_a_token_across_a_border_is_counted_and_not_learned() -> None:
    tokenizer = train_tokenizer("byte_bpe", ["abab abab"] * 9, vocab_size=280, lowercase=False)
    source = "a{% generation %}bab{% endgeneration %}"
    (turns,) = encode_turns([(TALK, None)], ChatTemplate(source), tokenizer)
    assert isinstance(turns, Turns) and turns.torn == 1 and not turns.learned.all()


def test_a_template_that_changes_earlier_turns_is_named() -> None:
    source = "{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="writes a turn otherwise once others follow"):
        ChatTemplate(source).spans(TALK)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "does not take this: roles must alter"),
        ("{{ messages[0].content.nothing() }}", "does not take this"),
        ("{{ ''.__class__.__mro__ }}{{ messages.append(1) }}", "does not take this"),
    ],
)
def test_a_template_that_fails_is_named_and_nothing_is_reached_from_it(
    source: str, said: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UserError, match=said):
        ChatTemplate(source).render(TALK)
    (why,) = encode_turns([(TALK, None)], ChatTemplate(source), tokenizer)
    assert isinstance(why, str) and said[:20] in why


def test_a_template_that_is_no_jinja_is_refused() -> None:
    with pytest.raises(UserError, match=r"cannot be read: .*[^.]\.$"):
        ChatTemplate("{% for %}")


def test_a_folders_own_file_goes_before_its_config(tmp_path: Path) -> None:
    assert ChatTemplate.of_folder(tmp_path) is None
    config = '{"chat_template": "config {{ eos_token }}", "eos_token": {"content": "<e>"}}'
    (tmp_path / "tokenizer_config.json").write_text(config)
    found = ChatTemplate.of_folder(tmp_path)
    assert found is not None and found.render(TALK) == "config <e>"
    (tmp_path / "chat_template.jinja").write_text("file")
    found = ChatTemplate.of_folder(tmp_path)
    assert found is not None and found.render(TALK) == "file"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "it holds no messages"),
        ("text", "it holds no messages"),
        ([{"content": "a"}], "a message has no role"),
        ([{"role": "bot", "content": "a"}], "the role 'bot' is unknown"),
        ([{"role": "user", "content": None}], "the content of a message of 'user' is no text"),
        ([{"role": "user", "content": "a"}], "it has no turn of the assistant"),
        ([{"role": "assistant", "content": " "}], "it has no turn of the assistant"),
        (TALK, None),
    ],
)
def test_what_is_no_conversation_is_said(messages: object, why: str | None) -> None:
    found = fault_of(messages)
    assert found == why or (why is not None and found is not None and found.startswith(why))
