"""Chat templates, with transformers' apply_chat_template as the witness."""

from pathlib import Path

import pytest
import transformers

from igla.text.chat import Turns, encode_turns
from igla.text.template import CHATML, ChatTemplate
from igla.text.tokenizer import TextEncoder, save_tokenizer, train_tokenizer

TALK = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4 <b>&"},
    {"role": "user", "content": "А 3 + 3?\n\nИ 1?"},
    {"role": "assistant", "content": "6 и 1 🦓"},
]
# Written for this test, in the manners of published ones.
TEMPLATES = {
    "chatml": CHATML,
    "llama-like": (
        "{{ bos_token }}{%- for message in messages -%}\n"
        "{%- if message['role'] == 'user' -%}[INST] {{ message['content'] | trim }} [/INST]\n"
        "{%- else -%} {% generation %}{{ message['content'] + eos_token }}{% endgeneration %}\n"
        "{%- endif -%}{%- endfor -%}"
    ),
    "json, loops and namespaces": (
        "{%- set ns = namespace(turns=0) -%}\n"
        "{% for message in messages %}\n"
        "  {% if loop.index0 > 9 %}{% break %}{% endif %}\n"
        "  {% set ns.turns = ns.turns + 1 %}\n"
        "{{ ns.turns }} {{ message | tojson }}{{ message.content.split('\\n') | join('|') }}\n"
        "  {% if message.role == 'assistant' %}{% generation %}{{ message.content }}"
        "{% endgeneration %}{% endif %}\n"
        "{% endfor %}{% if add_generation_prompt %}go{% endif %}"
    ),
}


def test_tools_are_written_as_transformers_writes_them(tmp_path: Path) -> None:
    template = (
        "{%- if tools %}Tools:{% for tool in tools %} {{ tool | tojson }}{% endfor %}{% endif -%}"
        "{%- for message in messages -%}{{ message.role }}: {{ message.content or '' }}"
        "{%- for call in message.tool_calls or [] %} call {{ call.function | tojson }}"
        "{% endfor %}\n{% endfor -%}"
    )
    tokenizer = train_tokenizer("byte_bpe", ["a b"], vocab_size=300, lowercase=False)
    save_tokenizer(tmp_path, TextEncoder(tokenizer, 512))
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    schema = {"name": "look", "description": "Looks <up>", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": schema}]
    call = {"type": "function", "function": {"name": "look", "arguments": {"for": "кот"}}}
    talk = [*TALK[:1], {"role": "assistant", "content": None, "tool_calls": [call]}]
    ours = ChatTemplate.of_folder(tmp_path)
    assert ours is not None
    for given in (tools, None):
        expected = theirs.apply_chat_template(talk, tools=given, tokenize=False)
        assert ours.render(talk, given) == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_tokens_and_what_is_learned_are_those_of_transformers(
    name: str, tmp_path: Path
) -> None:
    texts = ["2 + 2? 4 А 3 + 3? И 1? 6 и 1", "user assistant system INST"] * 5
    tokenizer = train_tokenizer("byte_bpe", texts, vocab_size=320, lowercase=False)
    save_tokenizer(tmp_path, TextEncoder(tokenizer, 512))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES[name], encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = ChatTemplate.of_folder(tmp_path)
    assert ours is not None
    for count in range(1, len(TALK) + 1):
        for prompt in (False, True):
            expected = theirs.apply_chat_template(
                TALK[:count], tokenize=False, add_generation_prompt=prompt
            )
            assert ours.render(TALK[:count], prompt=prompt) == expected
    found = theirs.apply_chat_template(
        TALK, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    (turns,) = encode_turns([(TALK, None)], ours, tokenizer)
    assert isinstance(turns, Turns) and turns.torn == 0
    assert turns.ids.tolist() == found["input_ids"]
    assert turns.learned.tolist() == [bool(one) for one in found["assistant_masks"]]
