"""Instructions whose answers can be checked: made up, without end, from a seed.

Six kinds: sums and differences, sorting, counting, copying, filling in JSON, and filling in a
template. A prompt is held out by what it says (a tenth of all prompts is), so that no seed and no
number of examples lets one be trained on and tested with.
"""

import hashlib
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igla.errors import UserError

# One prompt of so many is held out.
HELD_OUT = 10
# So many draws in a row of one kind that bring nothing new, and it is used up.
_TRIES = 10_000
_NAMES = "Anna Boris Clara Denis Elena Felix Galina Hugo Irina Jakob Kira Leo Maria Nikita".split()
_TOWNS = "Kazan Tver Omsk Perm Pskov Tomsk Sochi Tula Samara Ufa".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_TEMPLATES = (
    "Dear {name}, we meet in {town} on {day}.",
    "{name} left {town} on {day}.",
    "On {day} {name} writes from {town}.",
    "Ticket: {name}, {town}, {day}.",
)


@dataclass(frozen=True)
class Example:
    """An instruction of one of the kinds, and its only right answer."""

    kind: str
    prompt: str
    answer: str

    def is_right(self, given: str) -> bool:
        """Whether an answer is the right one to the letter; JSON may be spaced otherwise.

        Spaces and line feeds around it do not count. What is said beside it makes it wrong.
        """
        given = given.strip()
        if self.kind != "json":
            return given == self.answer
        try:
            found = json.loads(given, object_pairs_hook=_without_repeats)
        except ValueError:
            return False
        # As text, for 1, 1.0 and true are equal as values.
        return json.dumps(found, sort_keys=True) == json.dumps(
            json.loads(self.answer), sort_keys=True
        )

    @property
    def messages(self) -> list[dict[str, str]]:
        return [
            {"role": "user", "content": self.prompt},
            {"role": "assistant", "content": self.answer},
        ]


def examples(seed: int, count: int, *, held_out: bool = False) -> list[Example]:
    """So many examples, no prompt twice, of all kinds alike and in random order.

    held_out  of the prompts that are never trained on, or of the others
    """
    chance = random.Random(seed)
    found: list[Example] = []
    seen: set[str] = set()
    makers = list(KINDS.items())
    in_vain = 0
    while len(found) < count:
        kind, make = makers[len(found) % len(makers)]
        prompt, answer = make(chance)
        if prompt in seen or is_held_out(prompt) != held_out:
            in_vain += 1
            if in_vain > _TRIES:
                most = f"after {len(found):,} examples there are hardly any new ones"
                raise UserError(f"Of {kind} there are not so many different prompts: {most}.")
            continue
        in_vain = 0
        seen.add(prompt)
        found.append(Example(kind, prompt, answer))
    chance.shuffle(found)
    return found


def is_held_out(prompt: str) -> bool:
    """Whether a prompt is one of those to test with."""
    digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % HELD_OUT == 0


def write_tasks(folder: Path, seed: int, train: int, test: int) -> list[str]:
    """Write train.jsonl and test.jsonl as conversations; returns a line on each.

    UserError where files are there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    for name, count, held_out in (("train", train, False), ("test", test, True)):
        path = folder / f"{name}.jsonl"
        if path.exists():
            raise UserError(f"{path} is there already; choose another folder.")
        rows = (
            json.dumps({"kind": one.kind, "messages": one.messages}, ensure_ascii=False)
            for one in examples(seed, count, held_out=held_out)
        )
        path.write_text("\n".join([*rows, ""]), encoding="utf-8")
        said.append(f"{path}: {count:,} examples")
    return said


def read_tasks(path: Path) -> Iterator[Example]:
    """The examples of a file of write_tasks."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            prompt, answer = (one["content"] for one in row["messages"])
            yield Example(row["kind"], prompt, answer)
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}, line {number}: this is no example of a task.") from None


def _arithmetic(chance: random.Random) -> tuple[str, str]:
    digits = chance.randint(1, 3)
    one, other = (chance.randrange(10**digits) for _ in range(2))
    if chance.random() < 0.5:
        return f"Compute {one} + {other}.", str(one + other)
    return f"Compute {one} - {other}.", str(one - other)


def _sorting(chance: random.Random) -> tuple[str, str]:
    numbers = [chance.randrange(100) for _ in range(chance.randint(3, 6))]
    down = chance.random() < 0.5
    order = "from largest to smallest" if down else "from smallest to largest"
    answer = " ".join(map(str, sorted(numbers, reverse=down)))
    return f"Sort {order}: {' '.join(map(str, numbers))}", answer


def _counting(chance: random.Random) -> tuple[str, str]:
    letters = "".join(chance.choice("abcde") for _ in range(chance.randint(4, 10)))
    letter = chance.choice("abcde")
    return f"How many letters {letter} are in {letters}?", str(letters.count(letter))


def _copying(chance: random.Random) -> tuple[str, str]:
    words = [_word(chance) for _ in range(chance.randint(1, 4))]
    return f"Repeat: {' '.join(words)}", " ".join(words)


def _json(chance: random.Random) -> tuple[str, str]:
    name, town, age = chance.choice(_NAMES), chance.choice(_TOWNS), chance.randint(18, 90)
    fields: dict[str, Any] = {"name": name, "age": age, "town": town}
    keys = chance.sample(list(fields), chance.randint(2, 3))
    shape = "{" + ", ".join(f'"{key}": ?' for key in keys) + "}"
    prompt = f"Fill in {shape} from: {name} is {age} and lives in {town}."
    return prompt, json.dumps({key: fields[key] for key in keys})


def _template(chance: random.Random) -> tuple[str, str]:
    values = {
        "name": chance.choice(_NAMES),
        "town": chance.choice(_TOWNS),
        "day": chance.choice(_DAYS),
    }
    template = chance.choice(_TEMPLATES)
    order = chance.sample(list(values), 3)
    given = ", ".join(f"{key}={values[key]}" for key in order)
    return f"Fill in «{template}» with {given}.", template.format(**values)


def _word(chance: random.Random) -> str:
    return "".join(chance.choice(string.ascii_lowercase) for _ in range(chance.randint(2, 5)))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


KINDS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "arithmetic": _arithmetic,
    "sorting": _sorting,
    "counting": _counting,
    "copying": _copying,
    "json": _json,
    "template": _template,
}
