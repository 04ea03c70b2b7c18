"""Adapter folders, either way round, with PEFT as the witness."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from igla.adapt import (
    AdapterConfig,
    Target,
    activate,
    adapter_names,
    attach,
    chosen,
    detach,
    inactive,
    load_adapter,
    merge,
    save_adapter,
    targets_of,
)
from igla.adapt.base import Base, digest_of
from igla.adapt.targets import adapted
from igla.adapt.whole import with_variants
from igla.data.batch import pack
from igla.errors import UserError
from igla.infer.engines import Engine
from igla.infer.generator import Generator
from igla.infer.merging import merge_run
from igla.model.decoder import Decoder, load_decoder, packed_causal
from igla.model.folder import load_classifier

pytestmark = [
    # PEFT's own, about names of transformers' and about settings that are meant.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*target_modules:"),
    pytest.mark.filterwarnings("ignore:.*save_embedding_layers:"),
]
SHAPE = dict(
    vocab_size=100,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=40,
    num_labels=3,
)
DISTIL_SHAPE = dict(
    vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64,
    max_position_embeddings=40, num_labels=3,
)  # fmt: skip
ENCODERS: dict[str, Any] = {
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**SHAPE)),
    "roberta": lambda: transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(**SHAPE)
    ),
    "distilbert": lambda: transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(**DISTIL_SHAPE)
    ),
}
DECODER_SHAPE = dict(
    vocab_size=100,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=64,
    max_position_embeddings=40,
)
DECODERS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER_SHAPE)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**DECODER_SHAPE, tie_word_embeddings=True)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=40)
    ),
}
MODELS = ENCODERS | DECODERS
# Our settings, and PEFT's for the same.
KINDS: dict[str, dict[str, Any]] = {
    "lora": dict(),
    "rank-stabilised": dict(rank_stabilised=True),
    "dora": dict(method="dora"),
}
# Layers of each, and what is trained whole.
SOME: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bert": (("query", "value", "output.dense"), ("pooler.dense", "classifier")),
    "roberta": (("query", "key", "intermediate.dense"), ("classifier",)),
    "distilbert": (("q_lin", "lin2"), ("pre_classifier", "classifier")),
    "llama": (("q_proj", "v_proj", "up_proj"), ("lm_head",)),
    "qwen2": (("k_proj", "o_proj", "down_proj"), ("layers.1.mlp.gate_proj",)),
    "gpt2": (("c_attn", "mlp.c_proj"), ("h.0.mlp.c_fc",)),
}
WORDS = {"bert": "word_embeddings", "llama": "embed_tokens"}
SEQUENCES = [np.random.default_rng(0).integers(5, 100, length) for length in (3, 30, 1, 20)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def randomised(model: Any) -> Any:
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.2
    return model.eval()


def learned(model: Any, mark: str) -> None:
    """Let the parameters of adapters be as if they had learned something."""
    for name, parameter in model.named_parameters():
        if mark in name and "magnitude" not in name:
            parameter.data = torch.randn(parameter.shape) * 0.2
        elif mark in name:
            parameter.data *= 0.5 + torch.rand(parameter.shape)


@torch.no_grad()
def their_logits(model: Any) -> torch.Tensor:
    return torch.cat([model(torch.tensor(row)[None]).logits.flatten(0, -2) for row in SEQUENCES])


@torch.no_grad()
def our_logits(model: Any) -> torch.Tensor:
    batch = pack(SEQUENCES)
    model.eval()
    if not isinstance(model, Decoder):
        logits: torch.Tensor = model(batch)
        return logits
    states = model(batch.tokens, batch.positions, packed_causal(batch, model.config))
    return model.logits(states)


def opened(family: str, folder: Path) -> tuple[Any, tuple[Target, ...]]:
    """Our model of a base, and its layers."""
    model = load_classifier(folder).model if family in ENCODERS else load_decoder(folder)
    return model, targets_of(model, family)


def base(folder: Path, family: str = "bert") -> Base:
    return Base(str(folder), digest_of(folder), "SEQ_CLS" if family in ENCODERS else "CAUSAL_LM")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", MODELS)
def test_peft_opens_ours(family: str, kind: str, tmp_path: Path) -> None:
    theirs = randomised(MODELS[family]())
    theirs.save_pretrained(tmp_path / "base")
    ours, targets = opened(family, tmp_path / "base")
    some, whole = SOME[family]
    config = AdapterConfig(**KINDS[kind], rank=4, alpha=6, targets=some, whole=whole)
    attach(ours, targets, config)
    learned(ours, ".adapter.")
    for target in chosen(targets, whole, ""):
        for piece in target.pieces:
            ours.get_submodule(piece.module).weight.data *= 1.5
    (tmp_path / "adapter").mkdir()
    save_adapter(tmp_path / "adapter", ours, targets, config, base(tmp_path / "base", family))
    alone = their_logits(theirs)
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(their_logits(adapted), our_logits(ours), rtol=0, atol=1e-5)
    assert (their_logits(adapted) - alone).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", MODELS)
def test_we_open_pefts(family: str, kind: str, tmp_path: Path) -> None:
    theirs = randomised(MODELS[family]())
    theirs.save_pretrained(tmp_path / "base")
    named = {"rank_stabilised": {"use_rslora": True}, "method": {"use_dora": True}}
    settings = {name: value for field in KINDS[kind] for name, value in named[field].items()}
    some, whole = SOME[family]
    words = (WORDS[family],) if kind != "dora" and family in WORDS else ()
    config = peft.LoraConfig(
        r=5,
        lora_alpha=7,
        target_modules=[*some, *words],
        modules_to_save=list(whole),
        rank_pattern={some[0]: 3},
        fan_in_fan_out=family == "gpt2",
        **settings,
    )
    adapted = peft.get_peft_model(theirs, config).eval()
    learned(adapted, "lora_")
    learned(adapted, "modules_to_save")
    adapted.save_pretrained(tmp_path / "adapter")
    ours, targets = opened(family, tmp_path / "base")
    alone = our_logits(ours)
    load_adapter(ours, targets, tmp_path / "adapter", base(tmp_path / "base", family))
    torch.testing.assert_close(our_logits(ours), their_logits(adapted), rtol=0, atol=1e-5)
    assert (our_logits(ours) - alone).abs().max() > 0.1


def test_an_adapter_of_a_model_without_its_head_fits_the_one_with_it(tmp_path: Path) -> None:
    theirs = randomised(ENCODERS["bert"]())
    theirs.save_pretrained(tmp_path / "base")
    body = transformers.BertModel.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(body, peft.LoraConfig(target_modules=["query", "value"]))
    learned(adapted, "lora_")
    adapted.save_pretrained(tmp_path / "adapter")
    theirs.bert = adapted.merge_and_unload()
    ours = load_classifier(tmp_path / "base").model
    load_adapter(ours, targets_of(ours, "bert"), tmp_path / "adapter", base(tmp_path / "base"))
    torch.testing.assert_close(our_logits(ours), their_logits(theirs), rtol=0, atol=1e-5)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a base and an adapter of it."""
    theirs = randomised(ENCODERS["bert"]())
    theirs.save_pretrained(tmp_path / "base")
    ours = load_classifier(tmp_path / "base").model
    targets, config = targets_of(ours, "bert"), AdapterConfig(whole=("classifier",))
    attach(ours, targets, config)
    (tmp_path / "adapter").mkdir()
    save_adapter(tmp_path / "adapter", ours, targets, config, base(tmp_path / "base"))
    return tmp_path


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _without(ending: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter" / "adapter_model.safetensors"
        tensors = load_file(file)
        first = next(name for name in tensors if name.endswith(ending))
        save_file({name: value for name, value in tensors.items() if name != first}, file)

    return change


def _other_weights(folder: Path) -> None:
    randomised(ENCODERS["bert"]()).save_pretrained(folder / "base")


def _other_shape(folder: Path) -> None:
    smaller = transformers.BertConfig(**SHAPE | {"hidden_size": 16})
    transformers.BertForSequenceClassification(smaller).save_pretrained(folder / "base")
    file = folder / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file), file)  # as PEFT writes it, without what igla notes of the base


def _fewer_layers(folder: Path) -> None:
    shallower = transformers.BertConfig(**SHAPE | {"num_hidden_layers": 1})
    transformers.BertForSequenceClassification(shallower).save_pretrained(folder / "base")
    file = folder / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file), file)


def _cut(folder: Path) -> None:
    file = folder / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:500])


def _pickled(folder: Path) -> None:
    file = folder / "adapter" / "adapter_model.safetensors"
    file.rename(file.with_name("adapter_model.bin"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_other_weights, r"is an adapter of .*/base, not of .*/base"),
        (
            _other_shape,
            r"of another base \(.*/base\): .* has shape \[16, 32\], and",
        ),
        (
            _fewer_layers,
            r"of another base \(.*/base\): the model has no place for bert",
        ),
        (_without("lora_B.weight"), r"lacks bert.encoder.layer.*lora_B.weight"),
        (_cut, "is damaged or not safetensors"),
        (_pickled, "Pickled weights are never opened"),
        (_config(peft_type="IA3"), "peft_type 'IA3' is not supported"),
        (_config(init_lora_weights="pissa"), "init_lora_weights = 'pissa' is not supported"),
        (_config(bias="all"), "bias = 'all' is not supported"),
        (_config(alpha_pattern={"query": 3}), "alpha_pattern = .* is not supported"),
        (_config(anything_new=True), "anything_new = True is not supported"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_in_a_sentence(
    damage: Callable[[Path], None], said: str, saved: Path
) -> None:
    damage(saved)
    ours = load_classifier(saved / "base").model
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(UserError, match=said) as raised:
        load_adapter(ours, targets_of(ours, "bert"), saved / "adapter", base(saved / "base"))
    assert "\n" not in str(raised.value)
    after = ours.state_dict()
    assert after.keys() == before.keys(), "the model is as it was"
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_adapters_with_heads_of_their_own_are_switched_as_peft_switches_them(
    tmp_path: Path,
) -> None:
    theirs = randomised(ENCODERS["bert"]())
    theirs.save_pretrained(tmp_path / "base")
    ours, bare = (load_classifier(tmp_path / "base").model for _ in range(2))
    targets = targets_of(ours, "bert")
    for name in ("first", "second"):
        learned = load_classifier(tmp_path / "base").model
        config = AdapterConfig(targets=("query",), whole=("classifier",))
        attach(learned, targets, config)
        with torch.no_grad():
            for parameter in (learned.output.weight, learned.output.bias):
                parameter.add_(torch.randn_like(parameter))
            for layer in adapted(learned).values():
                for parameter in layer.adapter.parameters():
                    parameter.add_(torch.randn_like(parameter))
        (tmp_path / name).mkdir()
        save_adapter(tmp_path / name, learned, targets, config, base(tmp_path / "base"))
        load_adapter(ours, targets, tmp_path / name, base(tmp_path / "base"), name)
    assert adapter_names(ours) == ["first", "second"]
    peft_model = peft.PeftModel.from_pretrained(theirs, tmp_path / "first", "first")
    peft_model.load_adapter(tmp_path / "second", "second")
    for name in ("first", "second", "first"):
        activate(ours, [name])
        peft_model.set_adapter(name)
        torch.testing.assert_close(our_logits(ours), their_logits(peft_model), rtol=0, atol=1e-5)
        with inactive(ours):
            assert torch.equal(our_logits(ours), our_logits(bare))
        (tmp_path / "again").mkdir(exist_ok=True)
        other = {"first": "second", "second": "first"}[name]
        base_of, config = base(tmp_path / "base"), AdapterConfig(whole=("classifier",))
        save_adapter(tmp_path / "again", ours, targets, config, base_of, other)
        saved, again = (tmp_path / one / "adapter_model.safetensors" for one in (other, "again"))
        assert all(torch.equal(a, load_file(again)[key]) for key, a in load_file(saved).items())
    with pytest.raises(UserError, match="'first' and 'second' both bring output as a whole"):
        activate(ours, ["first", "second"])
    detach(ours, "first")
    assert torch.equal(our_logits(ours), our_logits(bare))
    activate(ours, ["second"])
    merge(ours)
    detach(ours)
    assert not with_variants(ours)
    peft_model.set_adapter("second")
    torch.testing.assert_close(our_logits(ours), their_logits(peft_model), rtol=0, atol=1e-5)


@pytest.fixture
def pefts_own(tmp_path: Path) -> tuple[Path, str]:
    """A folder with a decoder that writes and an adapter as PEFT alone writes it, and what
    transformers writes after "ab" by both."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=letters, show_progress=False))
    config = transformers.LlamaConfig(**DECODER_SHAPE | {"vocab_size": 256}, eos_token_id=0)
    theirs = randomised(transformers.LlamaForCausalLM(config))
    theirs.save_pretrained(tmp_path / "base")
    made.save(str(tmp_path / "base" / "tokenizer.json"))
    theirs.name_or_path = str(tmp_path / "base")
    adapted = peft.get_peft_model(theirs, peft.LoraConfig(target_modules=["q_proj", "up_proj"]))
    learned(adapted.eval(), "lora_")
    adapted.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "tokenizer.json").is_file()
    ids = torch.tensor([made.encode("ab").ids])
    found = adapted.generate(input_ids=ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    tokens = found[0, 2:].tolist()
    return tmp_path, made.decode(tokens[:-1] if tokens[-1] == 0 else tokens)


def test_a_folder_of_peft_alone_writes_as_it_does_there(pefts_own: tuple[Path, str]) -> None:
    folder, expected = pefts_own
    text = Generator.load(folder / "adapter").write("ab", 12)
    assert text == expected
    assert text != Generator.load(folder / "base").write("ab", 12)
    # The base is elsewhere by now.
    (folder / "base").rename(folder / "moved")
    with pytest.raises(UserError, match="is an adapter of .*/base, which is not to be had"):
        Generator.load(folder / "adapter")
    moved = Generator.load(folder / "moved", adapter=folder / "adapter")
    assert moved.write("ab", 12) == expected


def test_a_folder_of_peft_alone_is_merged_into_its_base(pefts_own: tuple[Path, str]) -> None:
    folder, expected = pefts_own
    merge_run(str(folder / "adapter"), folder / "merged")
    assert Generator.load(folder / "merged").write("ab", 12) == expected


def test_what_is_no_adapter_or_cannot_have_one_is_said(pefts_own: tuple[Path, str]) -> None:
    folder, _ = pefts_own
    with pytest.raises(UserError, match="is no adapter: it has no adapter_config.json"):
        Generator.load(folder / "base", adapter=folder / "base")
    with pytest.raises(UserError, match="The onnx engine computes what its file holds"):
        Generator.load(folder / "base", Engine("onnx"), folder / "adapter")
