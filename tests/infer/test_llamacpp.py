"""Decoders in llama.cpp: the same texts as the torch engine writes, and what llama.cpp wants."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from igla.errors import UserError
from igla.infer.backend import Backend, Rows
from igla.infer.decoding import Autoregressive, Decoding
from igla.infer.engines import Engine
from igla.infer.exporting import export
from igla.infer.generator import Generator, Masks
from igla.infer.gguf_export import export_gguf
from igla.infer.llamacpp_backend import LlamaCppBackend, library
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.torch_backend import TorchBackend
from igla.infer.wedlm import Wedlm
from igla.model.decoder import Decoder
from igla.model.decoder.config import LinearScaling, Llama3Scaling, YarnScaling
from igla.ops.weights import Precision

pytest.importorskip("llama_cpp", reason="igla[llamacpp] is not installed")

Make = Callable[..., Decoder]
SHAPES: dict[str, dict[str, object]] = {
    "llama": {},
    "tied": {"tied": True},
    "with biases": {"qkv_bias": True, "out_bias": True, "ffn_bias": True},
    "qwen3": {"qk_norm": True, "qkv_bias": True},
    "wide heads": {"head_dim": 32, "kv_heads": 1, "seed": 2},
    "linear scaling": {"rope_scaling": LinearScaling(4.0)},
    "llama3 scaling": {"rope_scaling": Llama3Scaling(8.0, 1.0, 4.0, 64)},
    "yarn": {"rope_scaling": YarnScaling(4.0, 64, 1.2)},
}


def written(
    backend: Backend, prompts: list[list[int]], decoding: Callable[[], Decoding], tokens: int
) -> list[list[int]]:
    scheduler = Scheduler(backend)
    for prompt in prompts:
        scheduler.submit(prompt, [decoding()], max_tokens=tokens)
    found: list[list[int]] = [[] for _ in prompts]
    while not scheduler.idle:
        for one in scheduler.step():
            found[one.request] += [new.token for new in one.tokens]
    return found


def greedy() -> Decoding:
    return Autoregressive(Sampling())


@pytest.mark.parametrize("shape", SHAPES)
def test_256_greedy_tokens_are_the_torch_engines(shape: str, decoder: Make, tmp_path: Path) -> None:
    model = decoder(**SHAPES[shape])
    prompts = [[5, 17, 3, 42], [1]]
    expected = written(TorchBackend(model), prompts, greedy, 256)
    backend = LlamaCppBackend(export_gguf(model, tmp_path), max_positions=512)
    assert written(backend, prompts, greedy, 256) == expected
    assert min(len(set(one)) for one in expected) > 4


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.1), ("int8", 0.1), ("int4", 0.6)])
def test_rounded_weights_give_nearly_the_same_logits(
    precision: Precision, tolerance: float, decoder: Make, tmp_path: Path
) -> None:
    model = decoder(std=0.1, hidden_size=64, intermediate_size=128)
    tokens = np.random.default_rng(0).integers(0, 61, 40)
    found = []
    for backend in (
        TorchBackend(model),
        LlamaCppBackend(export_gguf(model, tmp_path, precision)),
    ):
        rows = [Rows(backend.kv_cache().open(), 40)]
        found.append(backend.forward(tokens, np.arange(40), rows))
    error = (found[0] - found[1]).square().mean().sqrt() / found[0].std()
    assert 1e-5 < error < tolerance


def test_positions_out_of_order_are_refused(decoder: Make, tmp_path: Path) -> None:
    backend = LlamaCppBackend(export_gguf(decoder(), tmp_path))
    sequence = backend.kv_cache().open()
    for places in ([0, 2, 1], [1, 2, 3], [0, 0, 1]):
        with pytest.raises(UserError, match="takes scratch rows only at the positions that go on"):
            backend.forward(np.arange(3), np.array(places), [Rows(sequence, 0, 3)])
    with pytest.raises(UserError, match="takes 512 scratch rows in a forward"):
        backend.forward(np.zeros(513, int), np.arange(513), [Rows(sequence, 0, 513)])
    assert backend.forward(np.arange(3), np.arange(3), [Rows(sequence, 0, 3)]).shape == (3, 61)


def test_masks_are_filled_without_gaps_and_the_texts_are_the_same(
    decoder: Make, tmp_path: Path
) -> None:
    model = decoder()
    prompts = [[5, 17, 3, 42], [1], [9] * 30]

    def fill() -> Decoding:
        return Wedlm(0, window=4, islands=False)

    expected = written(TorchBackend(model), prompts, fill, 60)
    backend = LlamaCppBackend(export_gguf(model, tmp_path))
    assert written(backend, prompts, fill, 60) == expected


def test_more_sequences_than_llama_cpp_holds_are_computed_anew(
    decoder: Make, tmp_path: Path
) -> None:
    model = decoder()
    backend = LlamaCppBackend(export_gguf(model, tmp_path))
    del backend._sequences._free[3:]
    chance = np.random.default_rng(0)
    texts = [chance.integers(0, 61, 20) for _ in range(5)]
    cache = backend.kv_cache()
    numbers = [cache.open() for _ in texts]
    for start, stop in ((0, 12), (12, 20)):
        found = [
            backend.forward(text[start:stop], np.arange(start, stop), [Rows(n, stop - start)])
            for n, text in zip(numbers, texts, strict=True)
        ]
    assert backend.stats().rows > 5 * 20
    torch_backend = TorchBackend(model)
    for text, logits in zip(texts, found, strict=True):
        rows = [Rows(torch_backend.kv_cache().open(), 20, logits=8)]
        expected = torch_backend.forward(text, np.arange(20), rows)
        np.testing.assert_allclose(logits, expected, atol=1e-3)
    at_once = [Rows(n, 1) for n in numbers]
    with pytest.raises(RuntimeError, match="needs more sequences than llama.cpp can tell apart"):
        backend.forward(np.zeros(5, int), np.full(5, 20), at_once)


def test_keys_of_closed_texts_make_room_for_others(decoder: Make, tmp_path: Path) -> None:
    model = decoder()
    backend = LlamaCppBackend(export_gguf(model, tmp_path), cache_tokens=512)
    cells = backend._library.llama_n_ctx(backend._context)
    texts = [np.random.default_rng(seed).integers(0, 61, 500) for seed in range(8)]
    assert cells < 8 * 500
    for text in texts:  # each fills the pool and is closed
        sequence = backend.kv_cache().open()
        backend.forward(text, np.arange(500), [Rows(sequence, 500, logits=1)])
        backend.kv_cache().close(sequence)
    # The last is still there for who begins like it.
    again = backend.kv_cache().open(texts[-1].tolist())
    known, before = backend.kv_cache().length(again), backend.stats().rows
    assert known == 496
    backend.forward(texts[-1][known:], np.arange(known, 500), [Rows(again, 500 - known)])
    assert backend.stats().rows - before == 500 - known


TEXTS = [
    "the quick brown fox jumps over 13 lazy dogs, isn't it?",
    "Съешь же ещё этих мягких французских булок, да выпей чаю!",
    "  two  spaces\n\nand\ttabs \r\n and ends   ",
    "naïve café — 3.14159, 1000000; 你好，世界 🦔🌲",
    "a<end>b",
]


def test_texts_have_the_same_tokens(decoder_folder: Path, tmp_path: Path) -> None:
    export(str(decoder_folder), "gguf", "float32", tmp_path)
    generator = Generator.load(decoder_folder)
    backend = LlamaCppBackend(tmp_path / "model.gguf")
    llama = library()
    vocabulary = llama.llama_model_get_vocab(backend._model)
    for text in TEXTS:
        raw, room = text.encode(), (ctypes.c_int32 * 500)()
        count = llama.llama_tokenize(vocabulary, raw, len(raw), room, 500, True, True)
        assert [*room[:count]] == generator.prompt(text), text


def test_a_folder_is_written_on_by_its_file(
    decoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine("llamacpp")
    with pytest.raises(UserError, match="igla export MODEL --format gguf makes it"):
        Generator.load(decoder_folder, engine).write("the ", 8)
    monkeypatch.setattr("igla.infer.engines.FILES", {"llamacpp": str(tmp_path / "model.gguf")})
    export(str(decoder_folder), "gguf", "float32", tmp_path)
    text = Generator.load(decoder_folder, engine).write("the ", 40)
    assert text == Generator.load(decoder_folder).write("the ", 40)
    masked = Generator.load(decoder_folder, engine)
    filling = Generator(
        masked.model, masked.tokenizer, [*masked.ends], None, Masks(5, 8), decoder_folder, engine
    )
    assert filling.write("the ", 40)


def test_a_damaged_or_foreign_file_is_said(
    decoder: Make, decoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"no gguf")
    with pytest.raises(
        UserError, match="model.gguf cannot be opened by llama.cpp: .*invalid magic"
    ):
        LlamaCppBackend(file)
    export_gguf(decoder(), tmp_path)
    monkeypatch.setattr("igla.infer.engines.FILES", {"llamacpp": str(file)})
    with pytest.raises(UserError, match="has 61 tokens and the model of .* 2.. *: export it anew"):
        Generator.load(decoder_folder, Engine("llamacpp")).write("the ", 8)
