"""Small tasks that are made up, with one right answer each: what decoding is measured on.

They are texts to be gone on with, and not instructions as those of igla.data.tasks, and most of
their answers are long: what several tokens at a time are worth shows on nothing else. Counting,
copying, JSON and templates have low entropy: nearly all of the answer follows from the question.
Arithmetic and sorting have to be worked out.
"""

import random
from collections.abc import Callable

from igla.data.tasks import Example

LOW_ENTROPY = ("counting", "copying", "json", "template")
NAMES = "Anna Boris Clara Denis Elena Fedor Galina Igor Julia Kirill Lena Maxim Nina Oleg".split()
CITIES = "Omsk Perm Tver Kazan Samara Moscow Tomsk Vologda Ryazan Pskov Saratov Murmansk".split()
THINGS = "lamp table chair book clock radio phone cup plate shelf sofa carpet mirror desk".split()
PLACES = "shop station office market library museum theatre school".split()


def _counting(chance: random.Random) -> tuple[str, str]:
    start, count = chance.randint(0, 900), chance.randint(8, 14)
    numbers = " ".join(str(number) for number in range(start, start + count))
    return f"count from {start} to {start + count - 1}:", numbers


def _copying(chance: random.Random) -> tuple[str, str]:
    words = " ".join(chance.choice((*THINGS, *PLACES, *NAMES)) for _ in range(chance.randint(5, 9)))
    return f"copy: {words} ->", words


def _json(chance: random.Random) -> tuple[str, str]:
    name, city, thing = chance.choice(NAMES), chance.choice(CITIES), chance.choice(THINGS)
    age, price = chance.randint(18, 90), chance.randint(10, 99)
    asked = f"json: {name}, {age}, {city}, {thing} for {price} ->"
    return asked, (
        f'{{"name": "{name}", "age": {age}, "city": "{city}", '
        f'"order": {{"thing": "{thing}", "price": {price}}}}}'
    )


def _template(chance: random.Random) -> tuple[str, str]:
    name, thing, place = chance.choice(NAMES), chance.choice(THINGS), chance.choice(PLACES)
    city, number = chance.choice(CITIES), chance.randint(10, 99)
    asked = f"letter: {name}, {thing}, {place}, {city}, {number} ->"
    return asked, (
        f"Dear {name}, your {thing} has arrived at the {place} in {city}. "
        f"Please come with the number {number}. Thank you, the {place}."
    )


def _arithmetic(chance: random.Random) -> tuple[str, str]:
    one, other = chance.randint(1, 99), chance.randint(1, 99)
    return f"add: {one} + {other} =", str(one + other)


def _sorting(chance: random.Random) -> tuple[str, str]:
    numbers = chance.sample(range(10, 60), chance.randint(5, 8))
    told = " ".join(map(str, numbers))
    return f"sort: {told} ->", " ".join(map(str, sorted(numbers)))


TASKS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "counting": _counting,
    "copying": _copying,
    "json": _json,
    "template": _template,
    "arithmetic": _arithmetic,
    "sorting": _sorting,
}


def examples(count: int, seed: int, without: frozenset[str] = frozenset()) -> list[Example]:
    """So many of each task, no two alike, none of whose questions are among `without`."""
    chance = random.Random(seed)
    found: list[Example] = []
    for task, make in TASKS.items():
        seen = set(without)
        left, tries = count, 0
        while left and tries < 50 * count:  # of sums there are no more than 9,801
            question, answer = make(chance)
            tries += 1
            if question not in seen:
                seen.add(question)
                found.append(Example(task, question, answer))
                left -= 1
    return found


def text_of(example: Example) -> str:
    """The question with its answer, on one line."""
    return f"{example.prompt} {example.answer}"
