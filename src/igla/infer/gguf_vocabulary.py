"""A tokenizer in a GGUF file, as far as llama.cpp reads texts the same way: BPE over bytes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from igla.text.template import ChatTemplate

# How texts are cut before bytes are merged: llama.cpp knows the expressions by names of its own.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUTS = {
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}": "llama-bpe",
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}": "qwen2",
}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer that llama.cpp has.

    cut       its name for how texts are cut
    content   of tokenizer.json
    before    tokens that stand before each text, and `after` it
    ends      tokens that end what is written
    template  of conversations
    """

    cut: str
    content: Mapping[str, Any]
    before: Sequence[int]
    after: Sequence[int]
    ends: Sequence[int]
    template: str | None

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, ends: Sequence[int], template: ChatTemplate | None
    ) -> "Vocabulary | None":
        """None where llama.cpp would read texts otherwise."""
        content = json.loads(tokenizer.to_str())
        cut = _cut(content)
        if cut is None:
            return None
        framed = tokenizer.encode("a").ids
        plain = tokenizer.encode("a", add_special_tokens=False).ids
        begin = framed.index(plain[0])
        before, after = framed[:begin], framed[begin + len(plain) :]
        source = None if template is None else template.source
        return cls(cut, content, before, after, ends, source)

    def write(self, writer: Any, kinds: Any, size: int) -> None:
        """Into a GGUFWriter, for a model of so many tokens.

        kinds  gguf.TokenType
        """
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.cut)
        names = [f"[PAD{number}]" for number in range(size)]
        types = [kinds.UNUSED] * size
        for name, number in self.content["model"]["vocab"].items():
            names[number], types[number] = name, kinds.NORMAL
        for added in self.content["added_tokens"]:
            number = added["id"]
            names[number] = added["content"]
            types[number] = kinds.CONTROL if added["special"] else kinds.USER_DEFINED
        writer.add_token_list(names)
        writer.add_token_types(types)
        merges = self.content["model"]["merges"]
        writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
        writer.add_add_bos_token(bool(self.before))
        writer.add_add_eos_token(bool(self.after))
        if self.before:
            writer.add_bos_token_id(self.before[0])
        writer.add_eos_token_id(self.ends[0])
        if self.template is not None:
            writer.add_chat_template(self.template)


def _cut(content: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for how a tokenizer cuts texts; None where it has none."""
    model, normalizer = content["model"], content["normalizer"] or {}
    if model["type"] != "BPE" or model.get("byte_fallback") or model.get("dropout"):
        return None
    if normalizer.get("type") not in (None, "NFC"):
        return None
    steps = content["pre_tokenizer"] or {}
    parts = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    if parts[-1].get("type") != "ByteLevel" or parts[-1].get("add_prefix_space"):
        return None
    if len(parts) == 1:
        return "gpt-2" if parts[0].get("use_regex", True) else None
    split = parts[0]
    if len(parts) != 2 or split.get("type") != "Split" or split.get("behavior") != "Isolated":
        return None
    return None if split.get("invert") else _CUTS.get(split["pattern"].get("Regex", ""))
