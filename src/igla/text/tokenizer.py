"""Tokenizers in Hugging Face's files, by the `tokenizers` library."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from igla.errors import UserError
from igla.text.guard import guard

PAD, UNKNOWN, FIRST, LAST, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LARGEST_VOCABULARY = 30522
# Of byte-level tokenizers: what stands before and after each text, and the marks of a turn in a
# conversation (ChatML), there before anyone has conversations to learn from.
END = "<|endoftext|>"
MASK_OF_BYTES = "<|mask|>"  # which only decoders have that learn to fill masks
BYTE_TOKENS = (END, "<|im_start|>", "<|im_end|>")

# Above these a vocabulary is said not to suit the text. A vocabulary made for a language needs 1.2
# to 2 tokens a word; English BERT's needs about 4 on Russian, where it falls back to letters.
HIGH_FERTILITY = 3.0
HIGH_UNKNOWN_SHARE = 0.01


@dataclass(frozen=True)
class Encoded:
    """Token ids of texts, special tokens included.

    ids   one array a text
    lost  [N] tokens that were cut off each text
    """

    ids: list[np.ndarray]
    lost: np.ndarray


@dataclass(frozen=True)
class Fit:
    """How a vocabulary suits a text: tokens a word, and the share of unknown tokens."""

    fertility: float
    unknown_share: float

    @property
    def suits(self) -> bool:
        return self.fertility <= HIGH_FERTILITY and self.unknown_share <= HIGH_UNKNOWN_SHARE


class TextEncoder:
    """A tokenizer with the length at which it cuts."""

    def __init__(self, tokenizer: Tokenizer, max_length: int):
        self.tokenizer = tokenizer
        self.max_length = max_length
        # A folder's own settings for cutting and padding would act behind the caller's back.
        tokenizer.no_padding()
        tokenizer.no_truncation()

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def mask_token_id(self) -> int:
        """UserError when the tokenizer has no mask."""
        for name in (MASK, "<mask>", MASK_OF_BYTES):
            if (token := self.tokenizer.token_to_id(name)) is not None:
                return int(token)
        raise UserError(f"The tokenizer has no {MASK}: words cannot be hidden from the model.")

    @property
    def special(self) -> np.ndarray:
        """[V] bool, which tokens are no words."""
        marked = np.zeros(self.vocab_size, dtype=bool)
        marked[[*self.tokenizer.get_added_tokens_decoder()]] = True
        return marked

    @property
    def pad_token_id(self) -> int:
        for name in (PAD, "<pad>"):
            if (token := self.tokenizer.token_to_id(name)) is not None:
                return token
        return 0

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Tokenize in parallel; what is longer than max_length is cut and counted."""
        whole = self.tokenizer.encode_batch_fast(list(texts))
        lengths = np.array([len(encoding) for encoding in whole], dtype=np.int64)
        long = np.flatnonzero(lengths > self.max_length).tolist()
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in whole]
        cut = self._cutting.encode_batch_fast([texts[row] for row in long])
        for row, encoding in zip(long, cut, strict=True):
            ids[row] = np.array(encoding.ids, dtype=np.int32)
        return Encoded(ids, np.maximum(lengths - self.max_length, 0))

    @cached_property
    def _cutting(self) -> Tokenizer:
        cutting = Tokenizer.from_str(self.tokenizer.to_str())
        cutting.enable_truncation(self.max_length)
        return cutting

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts as they are: whole, and without special tokens."""
        return [
            encoding.ids
            for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def frame(self, ids: Sequence[int]) -> list[int]:
        """Ids with the special tokens that a text of its own has around it."""
        before, after = self._frame
        return [*before, *ids, *after]

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        framed = self.tokenizer.encode("a")
        special = framed.special_tokens_mask
        first = special.index(0) if 0 in special else min(1, len(special))
        return framed.ids[:first], framed.ids[first + special.count(0) :]


def train_tokenizer(
    kind: str,
    texts: Iterable[str],
    *,
    vocab_size: int,
    lowercase: bool,
    guarded: bool = False,
    latin_as_russian: bool = False,
) -> Tokenizer:
    """Train a WordPiece, BPE or Unigram tokenizer with BERT's special tokens, or BPE over bytes.

    guarded           read through text.guard, which lowers the case in any event
    latin_as_russian  as there

    The texts are read twice. The result depends on them alone: what the library leaves to the
    order of its hash tables and threads, which changes from process to process, is settled here.
    """
    if kind == "byte_bpe":
        return _train_on_bytes(texts, vocab_size, lowercase=lowercase)
    tokenizer = Tokenizer(_MODELS[kind]())
    steps = [normalizers.NFKC(), normalizers.BertNormalizer(strip_accents=False, lowercase=False)]
    tokenizer.normalizer = normalizers.Sequence(
        [*steps, normalizers.Lowercase()] if lowercase else steps
    )
    if guarded:
        guard_tokenizer(tokenizer, latin_as_russian=latin_as_russian)
    if kind == "wordpiece":
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
        )
        tokenizer.decoder = decoders.Metaspace()
    first = list(SPECIAL_TOKENS)
    if kind == "wordpiece":
        # Ties between merges are broken by ids, and the ids of the inner letters are given in the
        # order of a hash table, unless the letters come in as special tokens.
        letters = {letter for text in texts for letter in tokenizer.normalizer.normalize_str(text)}
        first += [f"##{letter}" for letter in sorted(letters) if not letter.isspace()]
    tokenizer.train_from_iterator(texts, _TRAINERS[kind](vocab_size, first))
    tokenizer = _with_settled_ids(tokenizer, kind)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {LAST}",
        pair=f"{FIRST} $A {LAST} $B:1 {LAST}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (FIRST, LAST)],
    )
    return tokenizer


def _train_on_bytes(texts: Iterable[str], vocab_size: int, *, lowercase: bool) -> Tokenizer:
    """BPE over bytes (Radford et al. 2019): every text has tokens, and comes back from them."""
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(BYTE_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, 0)]
    )
    return tokenizer


def add_mask(tokenizer: Tokenizer) -> None:
    """Give a tokenizer a mask, behind all its tokens, if it has none."""
    if all(tokenizer.token_to_id(name) is None for name in (MASK, "<mask>", MASK_OF_BYTES)):
        tokenizer.add_special_tokens([MASK_OF_BYTES])


def guard_tokenizer(tokenizer: Tokenizer, *, latin_as_russian: bool = False) -> None:
    """Have a tokenizer read texts through text.guard, before its own normaliser."""
    own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([guard(latin_as_russian=latin_as_russian), *own])


def vocabulary_for(words: int) -> int:
    """A vocabulary that so many running words can fill: pieces seen once teach nothing."""
    return int(np.clip(words // 8, 2000, LARGEST_VOCABULARY))


def bytes_vocabulary_for(words: int) -> int:
    """The same for a decoder's, whose head costs as much as some of its layers."""
    return int(np.clip(words // 100, 1024, 16384))


def measure_fit(encoder: TextEncoder, texts: Sequence[str]) -> Fit:
    """Fertility and unknown share on (a sample of) texts."""
    words = sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)
    unknown_ids = {encoder.tokenizer.token_to_id(name) for name in (UNKNOWN, "<unk>")}
    tokens = unknown = 0
    for encoding in encoder.tokenizer.encode_batch(list(texts), add_special_tokens=False):
        tokens += len(encoding.ids)
        unknown += sum(token in unknown_ids for token in encoding.ids)
    return Fit(tokens / max(words, 1), unknown / max(tokens, 1))


def save_tokenizer(folder: Path, encoder: TextEncoder, source: Path | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json, which AutoTokenizer opens.

    source  the folder that the tokenizer came from, whose tokenizer_config.json is kept
    """
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {}
    if source is not None and (source / "tokenizer_config.json").is_file():
        config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
        if load_tokenizer(source).to_str() != encoder.tokenizer.to_str():
            # The class that the source names may put a normaliser of its own in the file's place.
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        if encoder.tokenizer.token_to_id(MASK_OF_BYTES) is not None:
            config.setdefault("mask_token", MASK_OF_BYTES)
    else:
        vocabulary = encoder.tokenizer.get_vocab()
        config = {role: name for role, name in _roles(vocabulary) if name in vocabulary}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["model_max_length"] = encoder.max_length
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def _roles(vocabulary: dict[str, int]) -> Iterable[tuple[str, str]]:
    """What a vocabulary's special tokens are for, in tokenizer_config.json."""
    if END in vocabulary:
        return (("bos_token", END), ("eos_token", END), ("mask_token", MASK_OF_BYTES))
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    names = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    return zip(roles, SPECIAL_TOKENS if PAD in vocabulary else names, strict=True)


def has_tokenizer(folder: Path) -> bool:
    """Whether `load_tokenizer` finds one."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder: tokenizer.json, or BERT's older vocab.txt."""
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"{file} is damaged or not a tokenizer ({error}).") from None
    if (folder / "vocab.txt").is_file():
        return _bert_tokenizer(folder)
    raise UserError(f"{folder} has no tokenizer.json: its tokenizer is not known.")


def _bert_tokenizer(folder: Path) -> Tokenizer:
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    vocabulary = models.WordPiece.read_file(str(folder / "vocab.txt"))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(
        (LAST, vocabulary[LAST]), (FIRST, vocabulary[FIRST])
    )
    return tokenizer


_MODELS: dict[str, Callable[[], Any]] = {
    "wordpiece": lambda: models.WordPiece(unk_token=UNKNOWN),
    "bpe": lambda: models.BPE(unk_token=UNKNOWN),
    "unigram": lambda: models.Unigram(),
}
_TRAINERS: dict[str, Callable[[int, list[str]], Any]] = {
    "wordpiece": lambda size, first: trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=first, show_progress=False
    ),
    "bpe": lambda size, first: trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=first, show_progress=False
    ),
    "unigram": lambda size, first: trainers.UnigramTrainer(
        vocab_size=size, special_tokens=first, unk_token=UNKNOWN, show_progress=False
    ),
}


def _with_settled_ids(tokenizer: Tokenizer, kind: str) -> Tokenizer:
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(SPECIAL_TOKENS)]
    model = content["model"]
    if kind == "wordpiece":
        pieces = [*SPECIAL_TOKENS, *sorted(set(model["vocab"]) - set(SPECIAL_TOKENS))]
        model["vocab"] = {piece: index for index, piece in enumerate(pieces)}
    if kind == "unigram":
        # The library sums likelihoods in the order in which its threads finish.
        special = [[name, 0.0] for name in SPECIAL_TOKENS]
        pieces = [[piece, round(score, 6)] for piece, score in model["vocab"]]
        pieces = [entry for entry in pieces if entry[0] not in SPECIAL_TOKENS]
        model["vocab"] = special + sorted(pieces, key=lambda entry: (-entry[1], entry[0]))
        model["unk_id"] = SPECIAL_TOKENS.index(UNKNOWN)
    return Tokenizer.from_str(json.dumps(content))
