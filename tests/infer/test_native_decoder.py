"""The compiled decoder computes what the model's own code does, for every part there is."""

import ctypes
import platform
from collections.abc import Callable

import numpy as np
import pytest
import torch

from igla.infer import native_decoder
from igla.infer.backend import Rows
from igla.infer.native_decoder import why_not
from igla.infer.torch_backend import TorchBackend, round_weights
from igla.model.decoder import Decoder
from igla.model.decoder.config import DynamicScaling, LinearScaling
from igla.ops import native
from igla.ops.native import Native
from igla.ops.weights import PRECISIONS, Precision

PARTS: dict[str, dict[str, object]] = {
    "Llama": {},
    "one head of keys": {"kv_heads": 1},
    "heads of 64": {"heads": 2, "head_dim": 64, "kv_heads": 1},
    "heads of 128": {"heads": 1, "head_dim": 128, "kv_heads": 1},
    "Qwen2": {"qkv_bias": True, "tied": True},
    "Qwen3": {"qk_norm": True, "head_dim": 16},
    "GPT-2": {
        "kv_heads": 4,
        "position": "learned",
        "norm": "layer",
        "feed_forward": "gelu_tanh",
        "qkv_bias": True,
        "out_bias": True,
        "ffn_bias": True,
        "tied": True,
    },
    "ALiBi": {"position": "alibi"},
    "window": {"sliding_window": 7, "unlimited": (1,)},
    "scaled": {"rope_scaling": LinearScaling(4.0)},
    "scaled by length": {"rope_scaling": DynamicScaling(2.0, 16)},
    **{one: {"feed_forward": one} for one in ("gelu", "relu", "relu2", "geglu", "geglu_tanh")},
}


def logits(backend: TorchBackend) -> torch.Tensor:
    """Of two texts in pieces, with windows of guesses out of order between."""
    chance = np.random.default_rng(0)
    cache = backend.kv_cache()
    one, two = cache.open(), cache.open()
    found = []
    for committed, scratch in ((20, 0), (1, 9), (3, 12), (1, 0)):
        rows = [Rows(one, committed, scratch), Rows(two, 2 * committed)]
        positions = []
        for each in rows:
            length = cache.length(each.sequence)
            positions.append(np.arange(length, length + each.committed))
            beyond = length + each.committed + np.arange(each.scratch)
            positions.append(chance.permutation(beyond))
        total = sum(each.count for each in rows)
        tokens = chance.integers(0, 61, total)
        found.append(backend.forward(tokens, np.concatenate(positions), rows))
    return torch.cat(found)


@pytest.mark.parametrize("parts", PARTS)
def test_compiled_and_plain_code_agree(
    parts: str, decoder: Callable[..., Decoder], kernels: None
) -> None:
    compiled = TorchBackend(decoder(**PARTS[parts]))
    assert compiled.said == "float32, by compiled kernels"
    plain = TorchBackend(decoder(**PARTS[parts]), compiled=False)
    torch.testing.assert_close(logits(compiled), logits(plain), atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_fewer_bits_change_the_weights_and_nothing_else(
    precision: Precision, decoder: Callable[..., Decoder], kernels: None
) -> None:
    rounded = decoder()
    round_weights(rounded, precision)
    found = logits(TorchBackend(decoder(), precision=precision))
    torch.testing.assert_close(found, logits(TorchBackend(rounded)), atol=1e-4, rtol=1e-4)
    assert (found - logits(TorchBackend(decoder()))).abs().max() > 0.01


def test_fewer_bits_without_kernels_are_the_same_weights(
    decoder: Callable[..., Decoder], kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = logits(TorchBackend(decoder(), precision="int8"))
    monkeypatch.setattr(native, "native", lambda: Native(None, "off"))
    plain = TorchBackend(decoder(), precision="int8")
    assert plain.said == "int8, computed by torch, which is slower: off"
    torch.testing.assert_close(compiled, logits(plain), atol=1e-4, rtol=1e-4)


def test_a_model_that_the_kernels_cannot_compute_says_why(
    decoder: Callable[..., Decoder], kernels: None
) -> None:
    assert why_not(decoder()) is None
    assert why_not(decoder(norm_placement="post")) == "its layers are of another form"
    wide = decoder(intermediate_size=72)
    assert why_not(wide) == "the width of layers.0.ffn.down, 72, is no multiple of 32"
    reference = logits(TorchBackend(wide, compiled=False))
    assert torch.equal(logits(TorchBackend(wide)), reference)


@pytest.fixture(scope="module")
def without_avx512(kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """The decoder's kernel, compiled for a processor that has no AVX-512."""
    if platform.machine() != "x86_64":
        pytest.skip("this processor never has AVX-512")
    compiler, folder = ["g++", "-mno-avx512f"], tmp_path_factory.mktemp("narrow")
    native._object(compiler, native.SOURCES / "decode.cpp", folder / "decode.o")
    library = folder / "decode.so"
    native._run([*compiler, "-shared", "-fopenmp", str(folder / "decode.o"), "-o", str(library)])
    function: Callable[..., None] = ctypes.CDLL(str(library)).decode
    function.argtypes = native_decoder._decode._find(None).argtypes  # type: ignore[attr-defined]
    return function


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("parts", ["Llama", "heads of 64", "ALiBi", "window"])
def test_narrower_processors_compute_the_same_and_no_bit_hangs_on_the_cut(
    parts: str,
    precision: Precision,
    decoder: Callable[..., Decoder],
    without_avx512: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def backend() -> TorchBackend:
        return TorchBackend(decoder(**PARTS[parts]), precision=precision)

    wide = logits(backend())
    monkeypatch.setitem(native_decoder._decode._functions, None, without_avx512)
    torch.testing.assert_close(logits(backend()), wide, atol=1e-4, rtol=1e-4)
    tokens, places = np.random.default_rng(1).integers(0, 61, 31), np.arange(31)
    whole, cut = backend(), backend()
    expected = whole.forward(tokens, places, [Rows(whole.kv_cache().open(), 31)])
    sequence = cut.kv_cache().open()
    cut.forward(tokens[:18], places[:18], [Rows(sequence, 18)])
    found = cut.forward(tokens[18:], places[18:], [Rows(sequence, 4, 9)])
    assert torch.equal(found, expected[18:])
