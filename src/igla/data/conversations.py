"""From files to conversations to learn from, tokenized, with every decision counted."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from igla.data.batch import PackedBatch
from igla.data.selection import Decision
from igla.data.source import open_source
from igla.data.split import TRAIN, VALIDATION
from igla.data.store import TokenStore
from igla.errors import UserError
from igla.recipe import DataRecipe
from igla.text.chat import encode_turns, fault_of
from igla.text.template import ChatTemplate, Tools
from igla.text.tokenizer import TextEncoder

Row = Mapping[str, Any]
Messages = list[dict[str, Any]]
_AT_ONCE = 1024
# As in ShareGPT's files.
_ROLES = {"human": "user", "gpt": "assistant"}
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, eq=False)
class Conversations:
    """Conversations as tokens.

    store        one sequence each
    learned      [T] bool, of all tokens of the store: those that the assistant has written
    parts        [N] TRAIN or VALIDATION
    ends         tokens that end the assistant's turns, the commonest first
    fingerprint  of all that decides about them
    """

    store: TokenStore
    learned: np.ndarray
    parts: np.ndarray
    ends: tuple[int, ...]
    decisions: tuple[Decision, ...]
    fingerprint: str

    def batch(self, rows: np.ndarray) -> PackedBatch:
        """The given conversations, packed, with what is learned of them as targets."""
        offsets = self.store.offsets
        learned = [self.learned[offsets[row] : offsets[row + 1]] for row in rows]
        return replace(self.store.batch(rows), targets=torch.from_numpy(np.concatenate(learned)))


def load_conversations(
    recipe: DataRecipe, seed: int, template: ChatTemplate, encoder: TextEncoder
) -> Conversations:
    """Read the files of a recipe as conversations and tokenize them.

    What is longer than the encoder's length is cut at its end. Which part a conversation is of,
    where no rows to validate on are given, hangs on its first message alone: the same question is
    never in both.

    UserError for files that hold no conversations, and for rows that are of no use unless the
    recipe has them dropped.
    """
    if recipe.source is None:
        raise UserError("No data is given: name a file with --data.")
    reading = _Reading(template, encoder, seed, recipe.validation_share)
    prints = []
    of_source = None if recipe.validation is None else TRAIN
    for where, part in ((recipe.source, of_source), (recipe.validation, VALIDATION)):
        if where is None:
            continue
        source = open_source(where, recipe.encoding)
        prints.append(source.fingerprint())
        columns = _columns_of(recipe)
        for chunk in source.chunks():
            read = _reader(chunk.table.schema.names, columns, str(chunk.file))
            for row, values in enumerate(chunk.table.to_pylist(), start=chunk.first_row):
                where_it_is = f"{chunk.file}, row {row}"
                reading.take(read(values), values.get("tools"), where_it_is, part)
    reading.flush()
    settings = [recipe.model_dump_json(exclude={"source", "validation", "test"}), seed, prints]
    settings += [template.source, encoder.max_length, encoder.tokenizer.to_str()]
    fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    return reading.conversations(fingerprint, refuse=recipe.empty == "refuse")


class _Reading:
    """Conversations on their way from rows to tokens."""

    def __init__(self, template: ChatTemplate, encoder: TextEncoder, seed: int, share: float):
        self.template = template
        self.encoder = encoder
        self.seed = seed
        self.share = share
        self.waiting: list[tuple[Messages, Tools, str, int]] = []
        self.faults: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.ids: list[np.ndarray] = []
        self.learned: list[np.ndarray] = []
        self.parts: list[int] = []
        self.lost: list[int] = []
        self.torn = self.read = 0
        self.unread: Counter[str] = Counter()
        self.ends: Counter[int] = Counter()

    def take(self, messages: Any, tools: Any, where: str, part: int | None) -> None:
        """part  of the conversation; None: by its first message, a share of them to validate on"""
        self.read += 1
        why = fault_of(messages)
        try:
            tools = _tools(tools)
        except ValueError:
            why = why or "its tools are no list, and no JSON of one"
        if why:
            self._fault(why, where)
            return
        fields = {name for message in messages for name in message} - {"role", "content"}
        fields |= {"tools"} if tools else set()
        unread = {name for name in fields if name not in self.template.source}
        if "tool_calls" in unread and any(one["content"] is None for one in messages):
            self._fault("a turn calls a tool, and the chat template reads no tool_calls", where)
            return
        self.unread.update(unread)
        if part is None:
            part = self._part(messages)
        self.waiting.append((messages, tools, where, part))
        if len(self.waiting) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Tokenize what waits."""
        waiting, self.waiting = self.waiting, []
        found = encode_turns(
            [(messages, tools) for messages, tools, _, _ in waiting],
            self.template,
            self.encoder.tokenizer,
        )
        for turns, (_, _, where, part) in zip(found, waiting, strict=True):
            if isinstance(turns, str):
                self._fault(turns, where)
                continue
            length = self.encoder.max_length
            ids, learned = turns.ids[:length], turns.learned[:length]
            # The first token is nobody's next one.
            if not learned[1:].any():
                self._fault(f"no turn of the assistant is within {length} tokens", where)
                continue
            self.ids.append(ids.astype(np.uint32))
            self.learned.append(learned)
            self.parts.append(part)
            self.lost.append(len(turns.ids) - len(ids))
            self.torn += turns.torn
            last = turns.learned & ~np.append(turns.learned[1:], False)
            self.ends.update(turns.ids[last].tolist())

    def conversations(self, fingerprint: str, *, refuse: bool) -> Conversations:
        bad = self.faults.total()
        if bad and (refuse or not self.ids):
            why, count = self.faults.most_common(1)[0]
            what = "mend or drop them (data.empty=drop)" if refuse else "none is left"
            raise UserError(
                f"{bad:,} of {self.read:,} conversations cannot be learned from: "
                f"{self.first[why]}: {why} (so are {count:,}); {what}."
            )
        if not self.ids:
            raise UserError("There is no conversation in the data.")
        lengths = np.array([len(ids) for ids in self.ids])
        store = TokenStore(
            np.concatenate(self.ids),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.array(self.lost),
        )
        learned = np.concatenate(self.learned)
        special = self.encoder.special
        ends = tuple(one for one, _ in self.ends.most_common() if special[one])
        decisions = self._decisions(store, learned, ended=bool(ends))
        parts = np.array(self.parts)
        return Conversations(store, learned, parts, ends, tuple(decisions), fingerprint)

    def _decisions(self, store: TokenStore, learned: np.ndarray, *, ended: bool) -> list[Decision]:
        kept, cut = len(store.lengths), int((store.lost > 0).sum())
        tokens = len(learned)
        found = [
            Decision("conversations", 0, f"{kept:,} of {self.read:,} conversations"),
            *(
                Decision("dropped", count, f"dropped: {count:,} conversations ({why}), "
                         f"first {self.first[why]}")
                for why, count in self.faults.most_common()
            ),
            Decision(
                "learned",
                int(learned.sum()),
                f"{learned.sum():,} of {tokens:,} tokens are the assistant's and learned",
            ),
        ]  # fmt: skip
        if cut:
            lost, length = int(store.lost.sum()), self.encoder.max_length
            said = f"cut at {length} tokens: {cut:,} conversations, {lost:,} tokens lost"
            found.append(Decision("cut", cut, said))
        for name, count in self.unread.most_common():
            said = f"the chat template does not read '{name}': {count:,} conversations have it"
            found.append(Decision("unread", count, said))
        if self.torn:
            said = f"{self.torn:,} tokens lie across the border of a turn and are not learned"
            found.append(Decision("torn", self.torn, said))
        if not ended:
            said = "WARNING: no special token ends the assistant's turns: it will not learn to stop"
            found.append(Decision("ends", 0, said))
        return found

    def _fault(self, why: str, where: str) -> None:
        self.faults[why] += 1
        self.first.setdefault(why, where)

    def _part(self, messages: Messages) -> int:
        asked = next((one for one in messages if one["role"] == "user"), messages[0])
        salt = self.seed.to_bytes(8, "little")
        said = str(asked["content"]).encode()
        digest = hashlib.blake2b(said, digest_size=8, salt=salt).digest()
        return VALIDATION if int.from_bytes(digest, "little") / 2**64 < self.share else TRAIN


def _columns_of(recipe: DataRecipe) -> tuple[str, str] | None:
    if (recipe.prompt_column is None) != (recipe.completion_column is None):
        raise UserError("data.prompt_column and data.completion_column go together.")
    if recipe.prompt_column is None or recipe.completion_column is None:
        return None
    return recipe.prompt_column, recipe.completion_column


def _reader(
    names: list[str], columns: tuple[str, str] | None, file: str
) -> Callable[[Row], Messages | None]:
    """From a row to its messages, by the columns that there are."""
    if columns is not None:
        for column in columns:
            if column not in names:
                raise UserError(f"{file} has no column '{column}'; it has {', '.join(names)}.")
        return lambda row: _pair(row[columns[0]], row[columns[1]])
    for wanted, read in _FORMS.items():
        if set(wanted) <= set(names):
            return read
    forms = "; ".join(" and ".join(wanted) for wanted in _FORMS)
    raise UserError(
        f"{file} has the columns {', '.join(names)}, which are no conversations: there must be "
        f"{forms}; or name data.prompt_column and data.completion_column."
    )


def _messages(row: Row) -> Messages | None:
    found = row["messages"]
    return _said(found) if isinstance(found, list) else None


def _said(found: list[Any]) -> Messages:
    """Messages with the fields that they have."""
    return [{"content": None} | _without_nulls(one) for one in map(_fields, found)]


def _without_nulls(value: Any) -> Any:
    """What a row does not say, Arrow has as null, since others do."""
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return value


def _tools(given: Any) -> Tools:
    """A row's tools, which may be told as JSON, as Arrow gives all of a column the same fields;
    ValueError where they are no list."""
    found = json.loads(given) if isinstance(given, str) and given.strip() else given
    if found and not isinstance(found, list):
        raise ValueError
    return _without_nulls(found) or None


def _shared(row: Row) -> Messages | None:
    found = row["conversations"]
    if not isinstance(found, list):
        return None
    said = [(one.get("from"), one.get("value")) for one in map(_fields, found)]
    return [{"role": _ROLES.get(str(speaker), speaker), "content": text} for speaker, text in said]


def _fields(value: Any) -> dict[str, Any]:
    """A message's; what is none has no role, which is said of its conversation."""
    return value if isinstance(value, dict) else {}


def _pair(prompt: Any, completion: Any) -> Messages:
    before = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    after = completion
    if not isinstance(completion, list):
        after = [{"role": "assistant", "content": completion}]
    return _said([*before, *after])


def _instruction(row: Row) -> Messages:
    asked, given = row["instruction"], row.get("input")
    if given and isinstance(asked, str):
        asked = f"{asked}\n\n{given}"
    return _pair(asked, row.get("output"))


def _instances(row: Row) -> Messages | None:
    """As in self-instruct's seeds: an instruction with inputs and outputs, of which the first."""
    found = row["instances"]
    if not isinstance(found, list) or not found:
        return None
    return _instruction({**_fields(found[0]), "instruction": row["instruction"]})


def _spoken(row: Row) -> Messages | None:
    """hh-rlhf's: Human and Assistant in turn, each after an empty line."""
    text = row["chosen"]
    if not isinstance(text, str):
        return _messages({"messages": text})
    before, *turns = re.split(r"\n\n(Human|Assistant):", text)
    if before.strip():
        return None
    return list(_turns(turns))


def _turns(turns: list[str]) -> Iterator[dict[str, Any]]:
    for speaker, content in zip(turns[::2], turns[1::2], strict=True):
        yield {"role": _SPEAKERS[speaker], "content": content.strip()}


# What a file's columns may be, the first that fit.
_FORMS: dict[tuple[str, ...], Callable[[Row], Messages | None]] = {
    ("messages",): _messages,
    ("conversations",): _shared,
    ("chosen",): _spoken,
    ("prompt", "completion"): lambda row: _pair(row["prompt"], row["completion"]),
    ("instruction", "output"): _instruction,
    ("instruction", "instances"): _instances,
    ("question", "answer"): lambda row: _pair(row["question"], row["answer"]),
}
