"""Gates of a small model, and feedback as the log gives it."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from igla.gate.beginning import begin
from igla.gate.context import digest
from igla.gate.learner_settings import LearnerSettings
from igla.gate.log.records import Feedback
from igla.gate.outcomes import Outcome
from igla.gate.round import Learner, open_learner
from igla.recipe import load_recipe
from igla.serve.decisions import Verdict
from igla.terminal import plain_console
from igla.train.run import train

# «rude», of kind and rude.
BLOCK = 1
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
Give = Callable[..., Feedback]


@pytest.fixture
def give() -> Give:
    """Makes feedback, the one after the other."""
    numbers = count(1)

    def one(
        text: str,
        outcome: str,
        who: str = "anna",
        *,
        repeats: int = 0,
        minutes: float = 0.0,
        slice: str | None = None,
        probability: float | None = None,
        action: Verdict | None = None,
        decision: str | None = None,
    ) -> Feedback:
        seq, said = next(numbers), Outcome(outcome)
        return Feedback(
            seq=seq,
            id=f"f_{seq}",
            at=MIDNIGHT + timedelta(minutes=minutes),
            decision=decision,
            model="default",
            text=text,
            context=digest(text),
            outcome=said,
            target=said.target,
            weight=said.weight(repeats),
            repeats=repeats,
            who=who,
            key="",
            source="gate",
            subject=None,
            slice=slice,
            version=None,
            action=action,
            probability=probability,
            tool=None,
        )

    return one


NOUNS = "дом человек день разговор город ответ вопрос путь".split()
SMALL = (
    "model.size=tiny model.layers=1 model.hidden_size=32 model.intermediate_size=64 "
    "train.batch_size=16 train.precision=float32 optim.learning_rate=3e-3"
).split()
# Words that the first version has never seen, as people make them up.
NEW_KIND = "няшный душевный классный ламповый".split()
NEW_RUDE = "токсичный душный кринжовый стремный".split()


@pytest.fixture(scope="session")
def run(write_rows: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has kept enough rows to judge by."""
    folder = tmp_path_factory.mktemp("gate")
    rows = write_rows(folder / "rows.csv", 1000)
    settings = [
        *SMALL,
        f"data.source={rows}",
        "data.test_share=0.4",
        "data.validation_share=0.3",
        "train.steps=60",
    ]
    train(load_recipe(None, settings), folder / "run", plain_console(quiet=True))
    return folder / "run"


@pytest.fixture
def learner(run: Path, tmp_path: Path) -> Learner:
    """Of a gate of that run, which nothing has been said to yet."""
    home = begin(tmp_path / "gate", run, BLOCK)
    return open_learner(home, BLOCK, LearnerSettings())


@pytest.fixture
def slang(give: Give) -> Callable[..., list[Feedback]]:
    """Feedback on comments in new words: the serving version's opinion does not matter here."""

    def some(
        count: int, seed: int = 0, *, flipped: bool = False, who: str = "anna"
    ) -> list[Feedback]:
        chance = random.Random(seed)
        said = []
        for number in range(count):
            rude = chance.random() < 0.5
            words = [chance.choice(NEW_RUDE if rude else NEW_KIND), *chance.choices(NOUNS, k=4)]
            chance.shuffle(words)
            outcome = "override_block" if rude != flipped else "override_allow"
            text = f"{' '.join(words)} {seed} {number}"
            said.append(give(text, outcome, who, minutes=number))
        return said

    return some
