"""Folders of decoders, either way round, with transformers as the witness."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from igla.data.batch import PackedBatch, pack
from igla.model.decoder import Decoder, load_decoder, packed_causal, save_decoder
from igla.model.folder import read_json
from igla.objective.causal_lm import CausalLM

SHAPE = dict(
    vocab_size=300,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=96,
    max_position_embeddings=80,
    head_dim=12,
)
GPT2 = dict(vocab_size=300, n_embd=48, n_layer=3, n_head=4, n_positions=80)
QWEN3_MOE = dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=16)
ROPE = {"rope_theta": 500.0}
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=40)  # fmt: skip
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=20)
FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, SHAPE),
    "llama tied, with biases": (
        transformers.LlamaConfig,
        SHAPE | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama with one head of keys": (transformers.LlamaConfig, SHAPE | {"num_key_value_heads": 1}),
    "llama with GeGLU": (transformers.LlamaConfig, SHAPE | {"hidden_act": "gelu"}),
    "llama, linear": (
        transformers.LlamaConfig,
        SHAPE | {"rope_parameters": ROPE | {"rope_type": "linear", "factor": 4.0}},
    ),
    "llama, dynamic": (
        transformers.LlamaConfig,
        SHAPE
        | {
            "max_position_embeddings": 20,
            "rope_parameters": ROPE | {"rope_type": "dynamic", "factor": 3.0},
        },
    ),
    "llama, yarn": (transformers.LlamaConfig, SHAPE | {"rope_parameters": ROPE | YARN}),
    "llama, llama3": (transformers.LlamaConfig, SHAPE | {"rope_parameters": ROPE | LLAMA3}),
    "mistral": (transformers.MistralConfig, SHAPE | {"sliding_window": 7}),
    "mistral without window": (transformers.MistralConfig, SHAPE | {"sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, SHAPE),
    "qwen2 with a window from layer 1": (
        transformers.Qwen2Config,
        SHAPE | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3": (transformers.Qwen3Config, SHAPE | {"head_dim": 16}),
    "mixtral": (transformers.MixtralConfig, SHAPE | {"num_local_experts": 4}),
    "mixtral with a window": (
        transformers.MixtralConfig,
        SHAPE | {"num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 7},
    ),
    "qwen3_moe, softmax then top-k": (
        transformers.Qwen3MoeConfig,
        SHAPE | QWEN3_MOE | {"norm_topk_prob": False},
    ),
    "qwen3_moe, top-k then softmax": (
        transformers.Qwen3MoeConfig,
        SHAPE | QWEN3_MOE | {"norm_topk_prob": True},
    ),
    "qwen3_moe that names no width of a head": (
        transformers.Qwen3MoeConfig,
        {name: value for name, value in (SHAPE | QWEN3_MOE).items() if name != "head_dim"},
    ),
    "gpt2": (transformers.GPT2Config, GPT2),
    "gpt2 untied, narrow": (
        transformers.GPT2Config,
        GPT2 | {"tie_word_embeddings": False, "n_inner": 64, "activation_function": "gelu"},
    ),
}
SEQUENCES = [np.random.default_rng(0).integers(0, 300, length) for length in (3, 70, 1, 20)]


def randomised(config: Any) -> Any:
    """A peer's model with weights at which logits are of the order of 1 and every part matters."""
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def their_logits(model: Any, sequences: list[np.ndarray]) -> torch.Tensor:
    return torch.cat([model(torch.from_numpy(ids)[None]).logits[0] for ids in sequences])


def our_logits(model: Decoder, batch: PackedBatch) -> torch.Tensor:
    attend = packed_causal(batch, model.config)
    return model.logits(model(batch.tokens, batch.positions, attend))


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_those_of_transformers_in_either_direction(name: str, tmp_path: Path) -> None:
    kind, fields = FAMILIES[name]
    theirs = randomised(kind(**fields))
    theirs.save_pretrained(tmp_path)
    # One alone: a dynamic scaling goes by the longest text of a batch.
    sequences = SEQUENCES[1:2] if name == "llama, dynamic" else SEQUENCES
    with torch.no_grad():
        expected = their_logits(theirs, sequences)
        ours = load_decoder(tmp_path)
        torch.testing.assert_close(our_logits(ours, pack(sequences)), expected, atol=1e-4, rtol=0)

        (tmp_path / "ours").mkdir()
        save_decoder(tmp_path / "ours", ours)
        again = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "ours", attn_implementation="eager"
        )
        torch.testing.assert_close(their_logits(again, sequences), expected, atol=1e-4, rtol=0)
    own = read_json(tmp_path / "config.json")["model_type"]
    (tmp_path / "kept").mkdir()
    save_decoder(tmp_path / "kept", ours, read_json(tmp_path / "config.json"))
    assert read_json(tmp_path / "kept" / "config.json")["model_type"] == own
    assert load_decoder(tmp_path / "kept").config == ours.config


def mean_loss(model: Decoder, sequences: list[np.ndarray]) -> torch.Tensor:
    loss = CausalLM(torch.ones(300, dtype=torch.long)).loss(model, pack(sequences))
    return loss.sum / loss.count


def their_mean_loss(model: Any, sequences: list[np.ndarray]) -> torch.Tensor:
    total, count = torch.zeros(()), 0
    for ids in sequences:
        logits = model(torch.from_numpy(ids)[None]).logits[0, :-1]
        total = total + F.cross_entropy(logits, torch.from_numpy(ids[1:]), reduction="sum")
        count += len(ids) - 1
    return total / count


@pytest.mark.parametrize("name", FAMILIES)
def test_a_training_step_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    kind, fields = FAMILIES[name]
    theirs = randomised(kind(**fields))
    theirs.save_pretrained(tmp_path / "before")
    ours = load_decoder(tmp_path / "before")
    sequences = SEQUENCES[1:2] if name == "llama, dynamic" else [SEQUENCES[1], SEQUENCES[3]]
    one, other = mean_loss(ours, sequences), their_mean_loss(theirs, sequences)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    one.backward()
    other.backward()

    # Their gradients under our names: written as if they were weights, and read.
    after = {key: value - value.grad for key, value in theirs.named_parameters()}
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    theirs.save_pretrained(tmp_path / "gradients")
    expected = dict(load_decoder(tmp_path / "gradients").named_parameters())
    for key, parameter in ours.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[key].data, atol=1e-4, rtol=0, msg=key)

    # Both take the step, and transformers opens what ours has become.
    theirs.load_state_dict(after, strict=False)
    torch.optim.SGD(ours.parameters(), lr=1.0).step()
    (tmp_path / "after").mkdir()
    save_decoder(tmp_path / "after", ours)
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "after", attn_implementation="eager"
    )
    with torch.no_grad():
        torch.testing.assert_close(
            their_logits(again, sequences), their_logits(theirs, sequences), atol=2e-4, rtol=0
        )
