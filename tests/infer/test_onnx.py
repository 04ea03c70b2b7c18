"""Decoders exported to ONNX: names, and the same texts as the torch engine writes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from igla.errors import UserError
from igla.infer.backend import Backend, Rows
from igla.infer.decoding import Autoregressive
from igla.infer.engines import Engine
from igla.infer.exporting import export
from igla.infer.generator import Generator
from igla.infer.onnx_backend import OnnxBackend
from igla.infer.onnx_export import export_onnx
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.torch_backend import TorchBackend
from igla.model.decoder import Decoder

onnxruntime = pytest.importorskip("onnxruntime", reason="igla[onnx] is not installed")

Pair = tuple[Decoder, Path]


@pytest.fixture(params=["llama", "gpt2"])
def pair(request: pytest.FixtureRequest, exported: Callable[[str], Pair]) -> Pair:
    """A decoder and its graph."""
    return exported(request.param)


def written(backend: Backend, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    scheduler = Scheduler(backend)
    for prompt in prompts:
        scheduler.submit(prompt, [Autoregressive(Sampling())], max_tokens=tokens)
    found: list[list[int]] = [[] for _ in prompts]
    while not scheduler.idle:
        for one in scheduler.step():
            found[one.request] += [new.token for new in one.tokens]
    return found


def test_256_greedy_tokens_are_the_torch_engines(pair: Pair) -> None:
    model, file = pair
    prompts = [[5, 17, 3, 42], [1]]
    expected = written(TorchBackend(model), prompts, 256)
    assert written(OnnxBackend(file), prompts, 256) == expected
    assert min(len(set(one)) for one in expected) > 4


def test_windows_out_of_order_and_batches_have_the_same_logits(
    pair: Pair,
) -> None:
    model, file = pair
    found = []
    for backend in (OnnxBackend(file), TorchBackend(model)):
        cache, chance = backend.kv_cache(), np.random.default_rng(0)
        numbers = [cache.open() for _ in range(3)]
        for lengths in ((20, 3, 0), (4, 4, 9)):
            rows = [Rows(n, count) for n, count in zip(numbers, lengths, strict=True)]
            positions = [cache.length(r.sequence) + np.arange(r.count) for r in rows]
            tokens = chance.integers(0, 61, sum(lengths))
            found.append(backend.forward(tokens, np.concatenate(positions), rows))
        window = chance.permutation(np.arange(24, 32))
        tokens = chance.integers(0, 61, 9)
        rows = [Rows(numbers[0], 0, 8), Rows(numbers[1], 1)]
        found.append(backend.forward(tokens, np.append(window, 7), rows))
        assert cache.length(numbers[0]) == 24
    for one, other in zip(found[:3], found[3:], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_inputs_and_outputs_have_optimums_names(pair: Pair) -> None:
    session = onnxruntime.InferenceSession(str(pair[1]))
    past = [f"past_key_values.{n}.{part}" for n in range(2) for part in ("key", "value")]
    assert [one.name for one in session.get_inputs()] == [
        *("input_ids", "attention_mask", "position_ids"),
        *past,
    ]
    assert [one.name for one in session.get_outputs()] == [
        "logits",
        *(name.replace("past_key_values", "present") for name in past),
    ]


def test_what_is_not_there_is_said(tmp_path: Path, exported: Callable[[str], Pair]) -> None:
    _, file = exported("llama")
    with pytest.raises(UserError, match="There is no .*: igla export MODEL --format onnx makes"):
        OnnxBackend(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="has no CUDAExecutionProvider; it has .*CPUExec"):
        OnnxBackend(file, provider="cuda")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="cannot be opened by ONNX Runtime"):
        OnnxBackend(tmp_path / "model.onnx")


def test_a_mixture_or_a_recurrent_model_is_not_exported(
    decoder: Callable[..., Decoder], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="Only decoders with attention"):
        export_onnx(decoder(mixers=("gla",)), tmp_path)


def test_onnx_runtime_genai_opens_the_folder_and_writes_the_same(
    decoder_folder: Path, tmp_path: Path
) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    export(str(decoder_folder), "onnx", "float32", tmp_path)
    model = genai.Model(str(tmp_path))
    ids = genai.Tokenizer(model).encode("the quick").tolist()
    generator = Generator.load(decoder_folder)
    assert ids == generator.prompt("the quick")
    settings = genai.GeneratorParams(model)
    settings.set_search_options(do_sample=False, max_length=len(ids) + 40)
    writes = genai.Generator(model, settings)
    writes.append_tokens(ids)
    while not writes.is_done():
        writes.generate_next_token()
    found = [int(token) for token in writes.get_sequence(0)[len(ids) :]]
    [expected] = written(TorchBackend(generator.model), [ids], 40)
    ends = [at for at, token in enumerate(expected) if token in generator.ends]
    assert found == expected[: ends[0] + 1 if ends else None]


def test_the_engine_writes_from_its_file_alone(decoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(decoder_folder, tmp_path / "model"))
    expected = Generator.load(folder).write("abc", 20)
    export(str(folder), "onnx", "float32", None)
    (folder / "model.safetensors").unlink()  # which it would hold in memory besides
    assert Generator.load(folder, Engine("onnx")).write("abc", 20) == expected


@pytest.mark.parametrize(
    ("kind", "precision", "reason"),
    [
        ("tflite", "float32", "There is no format 'tflite'; there are onnx, gguf"),
        ("gguf", "int2", "There is no precision 'int2'; there are float32, bf16, int8, int4"),
        ("onnx", "int8", "ONNX graphs are of float32; int8 is for GGUF"),
    ],
)
def test_a_format_that_is_not_there_is_said(
    kind: str, precision: str, reason: str, decoder_folder: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        export(str(decoder_folder), kind, precision, None)
