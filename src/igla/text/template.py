"""Chat templates: conversations as the text that a decoder reads, in Hugging Face's form.

A template is Jinja, in chat_template.jinja or tokenizer_config.json. It comes with a model, so it
runs in a sandbox: whoever made it reaches nothing of this machine.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from igla.errors import UserError

TEMPLATE = "chat_template.jinja"
Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Any] | None  # that the assistant may call, as JSON schemas
# What igla gives a decoder that has none: ChatML, with the assistant's turns marked.
CHATML = """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}
{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}

{% else %}
{{ message.content }}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
# Stand around what a template marks as the assistant's; no text may hold them (Unicode 15, 23.7).
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
# Of tokenizer_config.json; templates write them where texts begin and end.
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class ChatTemplate:
    """A template, with the special tokens that it writes. UserError where it cannot be read."""

    def __init__(self, source: str, tokens: Mapping[str, str] | None = None):
        self.source = source
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            said = str(error).rstrip(".")
            raise UserError(f"The chat template cannot be read: {said}.") from None
        self._tokens = dict(tokens or {})

    @classmethod
    def of_folder(cls, folder: Path) -> "ChatTemplate | None":
        """The template of a tokenizer's folder; None where it has none."""
        config_file, own_file = folder / "tokenizer_config.json", folder / TEMPLATE
        config = json.loads(config_file.read_text("utf-8")) if config_file.is_file() else {}
        source = own_file.read_text("utf-8") if own_file.is_file() else config.get("chat_template")
        if isinstance(source, list):  # several by name, as older folders have it
            source = {one["name"]: one["template"] for one in source}.get("default")
        if source is None:
            return None
        given = {name: config.get(name) for name in _TOKENS}
        tokens = {
            name: token["content"] if isinstance(token, dict) else token
            for name, token in given.items()
            if token is not None
        }
        return cls(source, tokens)

    def render(self, messages: Messages, tools: Tools = None, *, prompt: bool = False) -> str:
        """The conversation as a text.

        prompt  up to where the assistant is to go on

        UserError for a conversation that the template does not take.
        """
        return self._marked(messages, tools, prompt).replace(_OPEN, "").replace(_CLOSE, "")

    def prompt(self, messages: Messages) -> str:
        """The text that the assistant is to go on from."""
        return self.render(messages, prompt=True)

    @property
    def marks(self) -> bool:
        """Whether the template itself says what is the assistant's, by {% generation %}."""
        return "endgeneration" in self.source

    def spans(self, messages: Messages, tools: Tools = None) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as a text, and where in it the assistant's turns begin and end.

        By {% generation %} where the template has it. Otherwise a turn is what comes after the
        prompt that asks for it, spaces at its end left out: that the text of fewer messages begins
        the text of more is checked, and UserError raised where it is not so.
        """
        if not self.marks:
            return self._by_prefixes(messages, tools)
        pieces: list[str] = []
        spans, start, length = [], 0, 0
        for piece in _split(self._marked(messages, tools, False)):
            if piece == _OPEN:
                start = length
            elif piece == _CLOSE:
                spans.append((start, length))
            else:
                pieces.append(piece)
                length += len(piece)
        return "".join(pieces), spans

    def _by_prefixes(self, messages: Messages, tools: Tools) -> tuple[str, list[tuple[int, int]]]:
        whole, spans = self.render(messages, tools), []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.render(messages[:index], tools, prompt=True)
            through = self.render(messages[: index + 1], tools)
            if not (through.startswith(before) and whole.startswith(through)):
                raise UserError(
                    "the template writes a turn otherwise once others follow, "
                    "and does not mark the assistant's by {% generation %}"
                )
            spans.append((len(before), len(through.rstrip())))
        return whole, spans

    def _marked(self, messages: Messages, tools: Tools, prompt: bool) -> str:
        for message in messages:
            if isinstance(message.get("content"), str) and (
                _OPEN in message["content"] or _CLOSE in message["content"]
            ):
                raise UserError("a message holds U+FDD0 or U+FDD1, which are no characters")
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=prompt, **self._tokens
            )
        except Exception as error:  # what a template calls may raise anything
            raise UserError(f"the chat template does not take this: {error}") from None


class _Generation(Extension):
    """{% generation %} … {% endgeneration %}: what a template says the assistant has written."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{_OPEN}{caller()}{_CLOSE}"


def _split(text: str) -> list[str]:
    """The text cut at its marks, which stand for themselves."""
    return re.split(f"([{_OPEN}{_CLOSE}])", text)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes signs of HTML, which no decoder has seen so.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> None:
    raise TemplateError(message)
