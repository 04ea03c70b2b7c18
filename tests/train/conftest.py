"""A training that takes a second: 96 rows that a one-layer model can learn, in float32."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from igla.recipe import Recipe, load_recipe

KIND = "добрый милый славный хороший приятный умный".split()
RUDE = "глупый злой гадкий плохой мерзкий тупой".split()
NOUNS = "дом человек день разговор город ответ вопрос путь".split()

SMALL = (
    "model.size=tiny model.layers=1 model.hidden_size=32 model.intermediate_size=64 "
    "train.batch_size=16 train.precision=float32 train.steps=6 optim.learning_rate=3e-3"
).split()


def write_rows(path: Path, rows: int, rude_share: float = 0.5) -> Path:
    """Comments that are rude by their adjectives."""
    chance = random.Random(0)
    lines = ["text,label"]
    for index in range(rows):
        rude = (index * rude_share) % 1 + rude_share >= 1
        words = [chance.choice(RUDE if rude else KIND), chance.choice(NOUNS)]
        words += [chance.choice(NOUNS) for _ in range(chance.randint(0, 9))]
        chance.shuffle(words)
        lines.append(f"{' '.join(words)} {index},{'rude' if rude else 'kind'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 96)


@pytest.fixture
def small(rows: Path) -> Callable[..., Recipe]:
    """The small recipe with some settings changed."""
    return lambda *changes: load_recipe(None, [f"data.source={rows}", *SMALL, *changes])
