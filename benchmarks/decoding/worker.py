"""One contestant of benchmarks/decode.py in a process of its own; its last line is JSON.

worker.py prepare FOLDER SHAPE SCRATCH
worker.py KIND:PRECISION FOLDER SCRATCH TOKENS REQUESTS SECONDS

A run is repeated for at least so many seconds; the fastest counts.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

PROMPT = [(7 * index) % 251 + 1 for index in range(16)]
SHAPES = {
    "30m": dict(
        vocab_size=16000,
        hidden_size=512,
        layers=7,
        heads=8,
        kv_heads=8,
        head_dim=64,
        intermediate_size=1408,
    ),
    "tiny": dict(
        vocab_size=320,
        hidden_size=64,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        intermediate_size=128,
    ),
}


def main() -> None:
    kind, *rest = sys.argv[1:]
    if kind == "prepare":
        said: dict[str, Any] = prepare(Path(rest[0]), rest[1], Path(rest[2]))
    else:
        engine, precision = kind.split(":")
        folder, scratch, tokens, requests = Path(rest[0]), Path(rest[1]), *map(int, rest[2:4])
        seconds = float(rest[4])
        write = ENGINES[engine](folder, scratch, precision, tokens)
        written = write()
        said = {"written": written, "rate": tokens / fastest(write, seconds), "together": None}
        if engine == "igla":
            said["together"] = together(folder, precision, tokens, requests, seconds)
    print(json.dumps(said))


def prepare(folder: Path, shape: str, scratch: Path) -> dict[str, Any]:
    """Make the model, if there is none, and its files for other engines; why some have none."""
    from igla.errors import UserError
    from igla.infer.genai_config import write_genai_config
    from igla.infer.gguf_export import export_gguf
    from igla.infer.onnx_export import export_onnx
    from igla.model.decoder import Decoder, DecoderConfig, load_decoder, save_decoder

    if not folder.exists():
        folder.mkdir(parents=True)
        torch.manual_seed(0)
        config = DecoderConfig(**SHAPES[shape], max_positions=1024, tied=True)
        model = Decoder(config)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                # Larger than at the start of training, so that the likeliest token is far ahead.
                torch.nn.init.normal_(parameter, std=0.06)
        save_decoder(folder, model, {"bos_token_id": 0, "eos_token_id": 0})
    model = load_decoder(folder)
    refused = {}
    try:
        file = export_onnx(model, scratch)
        write_genai_config(scratch, file.name, model.config, [0])
    except UserError as error:
        refused["onnx"] = str(error)
    try:
        for precision in ("float32", "int8", "int4"):
            (scratch / precision).mkdir()
            export_gguf(model, scratch / precision, precision)
    except UserError as error:
        refused["gguf"] = str(error)
    return refused


def fastest(write: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest run of as many as there is time for."""
    end, least = time.perf_counter() + seconds, float("inf")
    while time.perf_counter() < end:
        start = time.perf_counter()
        write()
        least = min(least, time.perf_counter() - start)
    return least


def scheduled(backend: Any, tokens: int, requests: int) -> list[int]:
    """All that a scheduler writes on from the prompt, greedily."""
    from igla.infer.decoding import Autoregressive
    from igla.infer.sampling import Sampling
    from igla.infer.scheduler import Scheduler

    scheduler, found = Scheduler(backend, budget=1024), []
    for number in range(requests):
        # Each prompt has a first token of its own, so that none finds another's cache.
        prompt = PROMPT if requests == 1 else [number + 1, *PROMPT[1:]]
        scheduler.submit(prompt, [Autoregressive(Sampling())], max_tokens=tokens)
    while not scheduler.idle:
        found += [new.token for one in scheduler.step() for new in one.tokens]
    return found


def igla_backend(folder: Path, precision: str, room: int) -> Any:
    from igla.infer.torch_backend import TorchBackend
    from igla.model.decoder import load_decoder

    return TorchBackend(load_decoder(folder), precision=precision, cache_tokens=room)


def together(folder: Path, precision: str, tokens: int, requests: int, seconds: float) -> float:
    """Tokens a second of so many requests at a time."""
    backend = igla_backend(folder, precision, requests * (len(PROMPT) + tokens + 32))
    return requests * tokens / fastest(lambda: scheduled(backend, tokens, requests), seconds)


def igla(folder: Path, scratch: Path, precision: str, tokens: int) -> Callable[[], list[int]]:
    backend = igla_backend(folder, precision, 2 * (len(PROMPT) + tokens) + 32)
    return lambda: scheduled(backend, tokens, 1)


def igla_onnx(folder: Path, scratch: Path, precision: str, tokens: int) -> Callable[[], list[int]]:
    from igla.infer.onnx_backend import OnnxBackend

    backend = OnnxBackend(scratch / "model.onnx", cache_tokens=2 * (len(PROMPT) + tokens) + 32)
    return lambda: scheduled(backend, tokens, 1)


def igla_llamacpp(
    folder: Path, scratch: Path, precision: str, tokens: int
) -> Callable[[], list[int]]:
    from igla.infer.llamacpp_backend import LlamaCppBackend

    room = 2 * (len(PROMPT) + tokens) + 32
    backend = LlamaCppBackend(scratch / precision / "model.gguf", cache_tokens=room)
    return lambda: scheduled(backend, tokens, 1)


def transformers(
    folder: Path, scratch: Path, precision: str, tokens: int
) -> Callable[[], list[int]]:
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    ids = torch.tensor([PROMPT])

    def write() -> list[int]:
        with torch.inference_mode():
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        return found[0, len(PROMPT) :].tolist()

    return write


def onnxruntime(
    folder: Path, scratch: Path, precision: str, tokens: int
) -> Callable[[], list[int]]:
    """The plainest fast loop: the present is handed back as the past without a copy."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(
        str(scratch / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    past_names = [one.name for one in session.get_inputs()][3:]
    shape = session.get_inputs()[3].shape
    outputs = [one.name for one in session.get_outputs()]

    def write() -> list[int]:
        empty = np.zeros((1, shape[1], 0, shape[3]), dtype=np.float32)
        past = [runtime.OrtValue.ortvalue_from_numpy(empty) for _ in past_names]
        found: list[int] = []
        new = np.array([PROMPT])
        length = 0
        while len(found) < tokens:
            total = length + new.shape[1]
            feeds = {
                "input_ids": new,
                "attention_mask": np.ones((1, total), dtype=np.int64),
                "position_ids": np.arange(length, total)[None],
            }
            values = {
                name: runtime.OrtValue.ortvalue_from_numpy(value) for name, value in feeds.items()
            }
            given = values | dict(zip(past_names, past, strict=True))
            logits, *past = session.run_with_ort_values(outputs, given)
            length = total
            found.append(int(logits.numpy()[0, -1].argmax()))
            new = np.array([[found[-1]]])
        return found

    return write


def genai(folder: Path, scratch: Path, precision: str, tokens: int) -> Callable[[], list[int]]:
    import onnxruntime_genai as engine

    threads = {"decoder": {"session_options": {"intra_op_num_threads": torch.get_num_threads()}}}
    config = engine.Config(str(scratch))
    config.overlay(json.dumps({"model": threads | {"eos_token_id": []}}))  # nothing ends a text
    model = engine.Model(config)

    def write() -> list[int]:
        settings = engine.GeneratorParams(model)
        settings.set_search_options(do_sample=False, max_length=len(PROMPT) + tokens)
        generator = engine.Generator(model, settings)
        generator.append_tokens(PROMPT)
        while not generator.is_done():
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)[len(PROMPT) :]]

    return write


def ctranslate2(
    folder: Path, scratch: Path, precision: str, tokens: int
) -> Callable[[], list[int]]:
    import ctranslate2 as engine
    from ctranslate2.converters import TransformersConverter
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    target, source = scratch / "ctranslate2", scratch / "with-words"
    if not target.exists():
        # It reads a vocabulary of words: the tokens' numbers.
        source.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if file.suffix in (".json", ".safetensors") and not file.name.startswith("tokenizer"):
                (source / file.name).write_bytes(file.read_bytes())
        size = json.loads((folder / "config.json").read_text())["vocab_size"]
        words = Tokenizer(models.WordLevel({str(token): token for token in range(size)}, "0"))
        PreTrainedTokenizerFast(
            tokenizer_object=words, bos_token="0", eos_token="0", unk_token="0"
        ).save_pretrained(source)
        TransformersConverter(str(source)).convert(str(target))
    threads = torch.get_num_threads()
    generator = engine.Generator(str(target), compute_type=precision, intra_threads=threads)
    prompt = [str(token) for token in PROMPT]

    def write() -> list[int]:
        [found] = generator.generate_batch(
            [prompt],
            max_length=tokens,
            min_length=tokens,
            include_prompt_in_result=False,
            sampling_topk=1,
            end_token=[],
        )
        return list(found.sequences_ids[0])

    return write


def llamacpp(folder: Path, scratch: Path, precision: str, tokens: int) -> Callable[[], list[int]]:
    """Its own sampler and defaults: keys and values of 16 bits, and flash attention where it has
    it; with weights of float32 neither, since its tokens are held against the others'."""
    import llama_cpp as engine

    quiet = engine.llama_log_callback(lambda *_: None)
    engine.llama_log_set(quiet, None)
    model = engine.llama_model_load_from_file(
        str(scratch / precision / "model.gguf").encode(), engine.llama_model_default_params()
    )
    settings = engine.llama_context_default_params()
    settings.n_ctx = len(PROMPT) + tokens
    settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
    if precision == "float32":
        settings.type_k = settings.type_v = engine.GGML_TYPE_F32
        settings.flash_attn_type = engine.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = engine.llama_init_from_model(model, settings)
    sampler = engine.llama_sampler_init_greedy()

    def write() -> list[int]:
        engine.llama_memory_clear(engine.llama_get_memory(context), False)
        found: list[int] = []
        new = PROMPT
        while len(found) < tokens:
            given = (engine.llama_token * len(new))(*new)
            if engine.llama_decode(context, engine.llama_batch_get_one(given, len(new))):
                raise RuntimeError("llama_decode")
            found.append(engine.llama_sampler_sample(sampler, context, -1))
            new = found[-1:]
        return found

    write.keeps = quiet  # type: ignore[attr-defined]  # as long as it may be called
    return write


ENGINES: dict[str, Callable[[Path, Path, str, int], Callable[[], list[int]]]] = {
    "igla": igla,
    "igla-onnx": igla_onnx,
    "igla-llamacpp": igla_llamacpp,
    "transformers": transformers,
    "onnxruntime": onnxruntime,
    "genai": genai,
    "ctranslate2": ctranslate2,
    "llamacpp": llamacpp,
}

if __name__ == "__main__":
    main()
