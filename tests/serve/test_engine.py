"""The model thread: what it computes together, whom it refuses, and whose work it drops."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from igla.infer.classifier import Classifier
from igla.serve.engine import BatchDone, Closing, Engine, Full

TEXTS = ["глупый дом", "добрый человек и славный разговор", "мерзкий вопрос", "путь"]


@pytest.fixture(scope="module")
def classifier(trained: Path) -> Classifier:
    return Classifier.load(trained / "model")


def test_what_waits_is_computed_together_and_each_gets_its_own(classifier: Classifier) -> None:
    batches: list[BatchDone] = []
    ids = classifier.encoder.encode(TEXTS).ids

    async def ask() -> list[np.ndarray]:
        engine = Engine(10_000, batches.append)
        engine.start()
        found = await asyncio.gather(*(engine.logits(classifier, [one]) for one in ids * 8))
        await engine.close()
        return found

    found = asyncio.run(ask())
    np.testing.assert_allclose(
        np.concatenate(found), np.tile(classifier.logits(TEXTS), (8, 1)), atol=1e-5
    )
    assert sum(one.sequences for one in batches) == 32
    assert len(batches) < 32
    assert sum(one.tokens for one in batches) == 8 * sum(map(len, ids))


def test_what_would_wait_too_long_is_refused_at_once(classifier: Classifier) -> None:
    ids = classifier.encoder.encode(TEXTS).ids

    async def ask() -> list[object]:
        engine = Engine(capacity=2 * len(ids[0]), on_batch=lambda done: None)
        engine.start()
        asked = [engine.logits(classifier, [ids[0]]) for _ in range(50)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        await engine.close()
        with pytest.raises(Closing):
            await engine.logits(classifier, [ids[0]])
        return list(found)

    found = asyncio.run(ask())
    refused = [one for one in found if isinstance(one, Full)]
    served = [one for one in found if isinstance(one, np.ndarray)]
    assert refused and served and len(refused) + len(served) == 50
    assert all(one.wait >= 0 for one in refused)


def test_work_whose_caller_has_left_is_not_done(classifier: Classifier) -> None:
    batches: list[BatchDone] = []
    ids = classifier.encoder.encode(TEXTS).ids

    async def ask() -> None:
        engine = Engine(100_000, batches.append)
        engine.start()
        left = [asyncio.ensure_future(engine.logits(classifier, [ids[1]] * 32)) for _ in range(200)]
        await asyncio.sleep(0)
        for one in left:
            one.cancel()
        stayed = await engine.logits(classifier, [ids[2]])
        assert stayed.shape == (1, 2)
        assert engine.waiting_tokens == 0
        await engine.close()

    asyncio.run(ask())
    assert sum(one.sequences for one in batches) < 200 * 32 / 2


def test_a_model_that_fails_fails_its_own_requests_alone(classifier: Classifier) -> None:
    async def ask() -> None:
        engine = Engine(10_000, lambda done: None)
        engine.start()
        with pytest.raises(IndexError):
            await engine.logits(classifier, [np.array([10**6])])
        assert (await engine.logits(classifier, [np.array([2, 3])])).shape == (1, 2)
        await engine.close()

    asyncio.run(ask())
