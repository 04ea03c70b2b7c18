"""Texts that igla and transformers write with the same weights: token for token the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from igla.infer.beams import beam_search
from igla.infer.decoding import Autoregressive
from igla.infer.sampling import Sampling, adjusted, probabilities
from igla.infer.scheduler import Scheduler
from igla.infer.torch_backend import TorchBackend
from igla.model.decoder import load_decoder

SHAPE = dict(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
CONFIGS = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=24),
    "qwen2": lambda: Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=32),
    "gpt2": lambda: GPT2Config(vocab_size=300, n_embd=64, n_layer=3, n_head=4, n_positions=512),
}
PROMPT = [5, 17, 200, 3, 42]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[PreTrainedModel, Path]]:
    """A model of transformers with weights large enough for lively texts, and its folder."""

    def make(kind: str, seed: int = 0) -> tuple[PreTrainedModel, Path]:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[kind](), attn_implementation="eager")
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        return model.eval(), folder

    return make


def theirs(model: PreTrainedModel, tokens: int, **settings: Any) -> torch.Tensor:
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([PROMPT]),
            attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
            max_new_tokens=tokens,
            pad_token_id=0,
            **settings,
        )
    return found[:, len(PROMPT) :]


def ours(folder: Path, tokens: int, sampling: Sampling, **settings: Any) -> list[int]:
    scheduler = Scheduler(TorchBackend(load_decoder(folder), **settings))
    scheduler.submit(PROMPT, [Autoregressive(sampling)], max_tokens=tokens)
    found = []
    while not scheduler.idle:
        found += [new.token for one in scheduler.step() for new in one.tokens]
    return found


@pytest.mark.parametrize(
    ("kind", "compiled"), [*((kind, True) for kind in CONFIGS), ("llama", False), ("gpt2", False)]
)
def test_256_greedy_tokens_are_the_same(kind: str, compiled: bool, saved: Any) -> None:
    model, folder = saved(kind)
    [expected] = theirs(model, 256, do_sample=False, eos_token_id=None).tolist()
    assert ours(folder, 256, Sampling(), compiled=compiled) == expected
    assert len(set(expected)) > 4


def test_with_a_repetition_penalty_they_are_the_same_too(saved: Any) -> None:
    model, folder = saved("llama")
    [expected] = theirs(
        model, 100, do_sample=False, eos_token_id=None, repetition_penalty=1.3
    ).tolist()
    assert ours(folder, 100, Sampling(repetition_penalty=1.3)) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"top_k": 13},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"typical_p": 0.7},
        {"temperature": 1.4, "top_k": 50, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.9},
        {"repetition_penalty": 1.5, "temperature": 0.8},
    ],
)
def test_what_is_drawn_from_is_the_same(settings: dict[str, float], saved: Any) -> None:
    model, _ = saved("llama")
    found = model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        max_new_tokens=1,
        do_sample=True,
        output_scores=True,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=0,
        eos_token_id=None,
        **({"top_k": 0} | settings),
    )
    sampling = Sampling(**({"temperature": 1.0} | settings))
    own = probabilities(adjusted(found.logits[0][0], sampling, PROMPT, []), sampling)
    torch.testing.assert_close(own, found.scores[0][0].softmax(0), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -0.5])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_beams_are_the_same(length_penalty: float, early_stopping: bool, saved: Any) -> None:
    ended = 0
    for seed in range(3):
        model, folder = saved("llama", seed)
        ends = [*range(7, 300, 12)]
        their = model.generate(
            torch.tensor([PROMPT]),
            attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
            max_new_tokens=30,
            num_beams=5,
            num_return_sequences=5,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=0,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            output_scores=True,
            return_dict_in_generate=True,
        )
        backend = TorchBackend(load_decoder(folder))
        found = beam_search(
            backend,
            PROMPT,
            beams=5,
            max_tokens=30,
            ends=ends,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
        )
        expected = [
            row[: next((at + 1 for at, token in enumerate(row) if token in ends), 30)]
            for row in their.sequences[:, len(PROMPT) :].tolist()
        ]
        assert [beam.tokens for beam in found] == expected
        scores = torch.tensor([beam.score for beam in found])
        torch.testing.assert_close(scores, their.sequences_scores, atol=1e-4, rtol=1e-4)
        assert backend.kv_cache().use().sequences == 0
        ended += sum(len(beam.tokens) < 30 for beam in found)
    assert ended > 0
