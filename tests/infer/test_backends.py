"""What every engine of generation has to do: one suite for all of them."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from igla.errors import UserError
from igla.infer.backend import Backend, Rows
from igla.infer.cache import OutOfBlocks
from igla.infer.gguf_export import export_gguf
from igla.infer.llamacpp_backend import LlamaCppBackend
from igla.infer.onnx_backend import OnnxBackend
from igla.infer.simulated import SimulatedBackend
from igla.infer.torch_backend import TorchBackend
from igla.model.decoder import Decoder
from igla.ops import native

MAKERS: dict[str, Callable[[Callable[..., Decoder]], Backend]] = {
    "simulated": lambda decoder: SimulatedBackend(61, 8, max_positions=512),
    "torch": lambda decoder: TorchBackend(decoder(), cache_tokens=128),
    "torch bf16": lambda decoder: TorchBackend(decoder(), precision="bf16", cache_tokens=128),
    "torch int8": lambda decoder: TorchBackend(decoder(), precision="int8", cache_tokens=128),
    "torch int4": lambda decoder: TorchBackend(decoder(), precision="int4", cache_tokens=128),
    "torch learned positions": lambda decoder: TorchBackend(
        decoder(position="learned", norm="layer", feed_forward="gelu_tanh", qkv_bias=True),
        cache_tokens=128,
    ),
    "torch ALiBi": lambda decoder: TorchBackend(decoder(position="alibi"), cache_tokens=128),
    "torch window": lambda decoder: TorchBackend(
        decoder(sliding_window=5, unlimited=(1,)), cache_tokens=128
    ),
    "torch code": lambda decoder: TorchBackend(decoder(), cache_tokens=128, compiled=False),
    "torch code bf16": lambda decoder: TorchBackend(
        decoder(), precision="bf16", cache_tokens=128, compiled=False
    ),
    "torch code ALiBi": lambda decoder: TorchBackend(
        decoder(position="alibi"), cache_tokens=128, compiled=False
    ),
    "torch code window": lambda decoder: TorchBackend(
        decoder(sliding_window=5), cache_tokens=128, compiled=False
    ),
    "torch code gla": lambda decoder: TorchBackend(decoder(mixers=("gla",)), cache_tokens=128),
    "torch code ssd": lambda decoder: TorchBackend(
        decoder(mixers=("ssd", "attention"), state_size=8, position="alibi"), cache_tokens=128
    ),
}
# Largest difference of a logit between one way of computing it and another. None at all by the
# compiled kernels; torch's products hang on the number of their rows.
ROUNDING, ROUNDING_BF16 = 2e-5, 0.25


@pytest.fixture(params=[*MAKERS, "onnx", "llamacpp"])
def backend(
    request: pytest.FixtureRequest, decoder: Callable[..., Decoder], tmp_path: Path
) -> Backend:
    if request.param == "llamacpp":
        pytest.importorskip("llama_cpp", reason="igla[llamacpp] is not installed")
        file = export_gguf(decoder(), tmp_path)
        return LlamaCppBackend(file, max_positions=512, cache_tokens=128)
    if request.param == "onnx":
        _, file = request.getfixturevalue("exported")("llama")
        return OnnxBackend(file, max_positions=512, cache_tokens=128)
    return MAKERS[request.param](decoder)


@pytest.fixture
def close(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor], None]:
    name = request.node.callspec.params["backend"]
    rounds = "code" in name or name in ("onnx", "llamacpp") or native.native().library is None
    rounding = ROUNDING_BF16 if name.endswith("bf16") else ROUNDING
    tolerance = rounding if rounds else 0.0

    def check(one: Tensor, other: Tensor) -> None:
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)

    return check


def text(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 61, length)


def run(backend: Backend, *parts: tuple[Rows, np.ndarray, np.ndarray]) -> Tensor:
    rows, tokens, positions = zip(*parts, strict=True)
    return backend.forward(np.concatenate(tokens), np.concatenate(positions), rows)


def committed(backend: Backend, sequence: int, tokens: np.ndarray) -> Tensor:
    """Logits of tokens that go on from a sequence."""
    return run(backend, part(backend, sequence, tokens))


def part(
    backend: Backend, sequence: int, tokens: np.ndarray
) -> tuple[Rows, np.ndarray, np.ndarray]:
    length = backend.kv_cache().length(sequence)
    return Rows(sequence, len(tokens)), tokens, np.arange(length, length + len(tokens))


def whole(backend: Backend, tokens: np.ndarray) -> Tensor:
    """Logits of a text in one forward, with nothing of it left behind."""
    sequence = backend.kv_cache().open()
    logits = committed(backend, sequence, tokens)
    backend.kv_cache().close(sequence)
    return logits


Close = Callable[[Tensor, Tensor], None]


def test_a_text_in_pieces_has_the_logits_of_the_whole(backend: Backend, close: Close) -> None:
    tokens = text(0, 45)
    expected = whole(backend, tokens)
    assert expected.shape == (45, backend.vocab_size) and expected.dtype == torch.float32
    for cuts in ([0, 45], [0, 16, 33, 45], [0, 20, 21, 22, 45], list(range(46))):
        sequence = backend.kv_cache().open()
        pieces = [
            committed(backend, sequence, tokens[start:stop])
            for start, stop in itertools.pairwise(cuts)
        ]
        close(torch.cat(pieces), expected)
        backend.kv_cache().close(sequence)


def test_a_row_is_blind_to_what_comes_after_it(backend: Backend, close: Close) -> None:
    tokens, other = text(0, 30), text(0, 30)
    other[20:] = (other[20:] + 1) % 61
    close(whole(backend, tokens)[:20], whole(backend, other)[:20])
    assert (whole(backend, tokens)[20:] - whole(backend, other)[20:]).abs().max() > 0.5


def test_sequences_side_by_side_do_not_see_one_another(backend: Backend, close: Close) -> None:
    texts = [text(seed, length) for seed, length in ((1, 20), (2, 1), (3, 37))]
    numbers = [backend.kv_cache().open() for _ in texts]
    first = run(backend, *(part(backend, n, t[:-1]) for n, t in zip(numbers, texts, strict=True)))
    second = run(backend, *(part(backend, n, t[-1:]) for n, t in zip(numbers, texts, strict=True)))
    for number in numbers:
        backend.kv_cache().close(number)
    expected = [whole(backend, one) for one in texts]
    close(first, torch.cat([one[:-1] for one in expected]))
    close(second, torch.cat([one[-1:] for one in expected]))


def test_a_truncated_sequence_goes_on_as_if_the_rest_had_never_been(
    backend: Backend, close: Close
) -> None:
    start, other = text(0, 34), text(5, 9)
    sequence = backend.kv_cache().open()
    committed(backend, sequence, start)
    backend.kv_cache().truncate(sequence, 19)
    found = committed(backend, sequence, other)
    backend.kv_cache().close(sequence)
    close(found, whole(backend, np.concatenate([start[:19], other]))[19:])


def test_a_prefix_that_was_computed_is_not_computed_again(backend: Backend, close: Close) -> None:
    tokens, cache = text(0, 40), backend.kv_cache()
    first = cache.open(tokens.tolist())
    expected = committed(backend, first, tokens)
    before, second = backend.stats(), cache.open(tokens.tolist())
    found = cache.length(second)
    if not found:
        pytest.skip("this engine shares no prefixes")
    close(committed(backend, second, tokens[found:]), expected[found:])
    assert found == 32 and backend.stats().rows - before.rows == 8


def test_a_fork_and_its_origin_go_their_own_ways(backend: Backend, close: Close) -> None:
    start, left, right = text(0, 21), text(1, 5), text(2, 5)
    first = backend.kv_cache().open()
    committed(backend, first, start)
    second = backend.kv_cache().fork(first)
    found = [committed(backend, first, left), committed(backend, second, right)]
    for number in (first, second):
        backend.kv_cache().close(number)
    for end, logits in zip((left, right), found, strict=True):
        close(logits, whole(backend, np.concatenate([start, end]))[21:])


def test_scratch_rows_are_computed_like_others_and_forgotten(
    backend: Backend, close: Close
) -> None:
    tokens = text(0, 30)
    expected = whole(backend, tokens)
    sequence = backend.kv_cache().open()
    committed(backend, sequence, tokens[:17])
    for _ in range(2):
        guesses = run(backend, (Rows(sequence, 0, 9), tokens[17:26], np.arange(17, 26)))
        close(guesses, expected[17:26])
    mixed = run(backend, (Rows(sequence, 3, 10), tokens[17:30], np.arange(17, 30)))
    close(mixed, expected[17:])
    assert backend.kv_cache().length(sequence) == 20
    close(committed(backend, sequence, tokens[20:]), expected[20:])
    assert backend.stats().scratch_rows == 28


def test_scratch_rows_see_one_another_in_their_physical_order(
    backend: Backend, close: Close
) -> None:
    if backend.scratch != "free":
        pytest.skip("this engine takes no positions out of order")
    tokens = text(0, 20)
    places = np.array([17, 19, 16, 18])
    sequence = backend.kv_cache().open()
    committed(backend, sequence, tokens[:16])
    window = run(backend, (Rows(sequence, 0, 4), tokens[places], places))
    for count in (1, 2, 3):
        # What comes after in physical order changes nothing, whatever its position.
        fewer = run(backend, (Rows(sequence, 0, count), tokens[places[:count]], places[:count]))
        close(fewer, window[:count])
    ascending = run(backend, (Rows(sequence, 0, 4), tokens[16:20], np.arange(16, 20)))
    assert (window[0] - ascending[1]).abs().max() > 1e-3


def test_only_logits_that_are_wanted_are_given(backend: Backend, close: Close) -> None:
    texts = [text(1, 9), text(2, 12), text(3, 7)]
    numbers = [backend.kv_cache().open() for _ in texts]
    wanted = [1, 0, None]
    found = run(
        backend,
        *(
            (Rows(number, len(one), logits=count), one, np.arange(len(one)))
            for number, one, count in zip(numbers, texts, wanted, strict=True)
        ),
    )
    close(found, torch.cat([whole(backend, texts[0])[-1:], whole(backend, texts[2])]))


def test_a_full_pool_is_said_before_anything_is_computed(backend: Backend, close: Close) -> None:
    cache = backend.kv_cache()
    first, second = cache.open(), cache.open()
    committed(backend, first, text(0, 100))
    before = backend.stats()
    with pytest.raises(OutOfBlocks):
        committed(backend, second, text(1, 40))
    assert backend.stats() == before
    cache.close(first)
    close(committed(backend, second, text(1, 40)), whole(backend, text(1, 40)))


def test_rows_that_contradict_the_cache_are_refused(backend: Backend) -> None:
    sequence = backend.kv_cache().open()
    committed(backend, sequence, text(0, 4))
    with pytest.raises(ValueError, match="the cache holds 4 tokens"):
        run(backend, (Rows(sequence, 2), text(1, 2), np.array([5, 6])))
    with pytest.raises(ValueError, match="3 tokens and 2 positions for 2 rows"):
        backend.forward(text(1, 3), np.array([4, 5]), [Rows(sequence, 2)])
    twice = (Rows(sequence, 0, 1), text(1, 1), np.array([4]))
    with pytest.raises(ValueError, match="named twice"):
        run(backend, twice, twice)


def test_a_position_beyond_the_model_is_a_users_mistake(backend: Backend) -> None:
    with pytest.raises(UserError, match="Position 512 is asked for; the model knows 512"):
        run(backend, (Rows(backend.kv_cache().open(), 0, 1), text(0, 1), np.array([512])))


def test_stats_count_what_was_done(backend: Backend) -> None:
    sequence = backend.kv_cache().open()
    committed(backend, sequence, text(0, 20))
    run(backend, (Rows(sequence, 1, 3), text(1, 4), np.arange(20, 24)))
    stats = backend.stats()
    assert (stats.forwards, stats.rows, stats.scratch_rows) == (2, 24, 3)
    assert stats.cache is not None and (stats.cache.tokens, stats.cache.used) == (21, 2)
    assert all(seconds > 0 for seconds in stats.seconds.values())
