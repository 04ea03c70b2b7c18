"""The model thread: what it computes together, whom it refuses, and whose work it drops."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from igla.data.batch import PackedBatch
from igla.infer.classifier import Classifier
from igla.serve.engine import BatchDone, Closing, Engine, Full, TooLong

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
        found = await asyncio.gather(*(engine.outputs(classifier.model, [one]) for one in ids * 8))
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
        asked = [engine.outputs(classifier.model, [ids[0]]) for _ in range(50)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        await engine.close()
        with pytest.raises(Closing):
            await engine.outputs(classifier.model, [ids[0]])
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
        left = [
            asyncio.ensure_future(engine.outputs(classifier.model, [ids[1]] * 32))
            for _ in range(200)
        ]
        await asyncio.sleep(0)
        for one in left:
            one.cancel()
        stayed = await engine.outputs(classifier.model, [ids[2]])
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
            await engine.outputs(classifier.model, [np.array([10**6])])
        assert (await engine.outputs(classifier.model, [np.array([2, 3])])).shape == (1, 2)
        await engine.close()

    asyncio.run(ask())


class Told(nn.Module):
    """Tells which sequences it is given together, by their first tokens, and gives them back."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def forward(self, batch: PackedBatch) -> Tensor:
        first = batch.tokens[batch.cu_seqlens[:-1]]
        self.batches.append(first.tolist())
        self.begun.set()
        assert self.go_on.wait(20)
        return first[:, None].float()


def sequences(first: int, count: int, length: int) -> list[np.ndarray]:
    return [np.full(length, first, dtype=np.int32) for _ in range(count)]


async def asked_while_busy(model: Told, engine: Engine, asked: list[Any]) -> list[Any]:
    """The outcomes of requests that all came while the model was at work."""
    engine.start()
    busy = asyncio.ensure_future(engine.outputs(model, sequences(0, 1, 1)))
    await asyncio.to_thread(model.begun.wait, 20)
    waiting = [asyncio.ensure_future(engine.outputs(*one)) for one in asked]
    await asyncio.sleep(0)
    model.go_on.set()
    found = await asyncio.gather(busy, *waiting, return_exceptions=True)
    await engine.close()
    return found[1:]


def test_a_request_with_many_texts_does_not_hold_back_who_came_after_it() -> None:
    model = Told()
    many, one, two = sequences(1, 20, 500), sequences(2, 1, 500), sequences(3, 2, 500)
    engine = Engine(30_000, lambda done: None)
    found = asyncio.run(
        asked_while_busy(model, engine, [(model, many), (model, one), (model, two)])
    )
    assert [outputs[:, 0].tolist() for outputs in found] == [[1] * 20, [2], [3] * 2]
    assert model.batches[:3] == [[0], [1, 2, 3, 1], [3, 1, 1, 1]]
    assert sum(map(len, model.batches)) == 24


def test_models_take_turns() -> None:
    first, second = Told(), Told()
    second.go_on.set()
    engine = Engine(30_000, lambda done: None)
    asked = [(first, sequences(1, 9, 500)), (second, sequences(2, 1, 500))]
    found = asyncio.run(asked_while_busy(first, engine, asked))
    assert [outputs[:, 0].tolist() for outputs in found] == [[1] * 9, [2]]
    assert first.batches[1] == [1] * 4 and second.batches == [[2]]


def test_a_large_request_leaves_room_for_small_ones() -> None:
    model = Told()
    engine = Engine(10_000, lambda done: None)
    asked = [
        (model, sequences(1, 15, 500)),
        (model, sequences(2, 5, 500)),  # more than a batch: not beyond three quarters
        *[(model, sequences(3, 1, 500))] * 5,
        (model, sequences(4, 1, 500)),
        (model, sequences(5, 16, 500)),
    ]
    found = asyncio.run(asked_while_busy(model, engine, asked))
    kinds = [type(one) for one in found]
    assert kinds == [np.ndarray, Full, *[np.ndarray] * 5, Full, TooLong]
