"""The BERT family's Hugging Face names: one table row per architecture.

A family says how its config.json spells our EncoderConfig and how its tensors are called. Our
`qkv` is their three matrices one above the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from igla.errors import UserError
from igla.model.config import EncoderConfig
from igla.model.parts import ACTIVATIONS


@dataclass(frozen=True)
class Family:
    """How one architecture of Hugging Face is spelt.

    body    prefix of the encoder's tensors; folders saved without a head lack it
    names   our module → their module(s); {i} is the layer
    fields  our EncoderConfig field → their config.json field
    fixed   fields of our EncoderConfig that the architecture settles
    """

    body: str
    architecture: str
    names: Mapping[str, tuple[str, ...]]
    fields: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)


_BERT_BODY = {
    "encoder.embeddings.word": ("{body}embeddings.word_embeddings",),
    "encoder.embeddings.ngrams": ("{body}embeddings.ngrams",),
    "encoder.embeddings.ngrams.table": ("{body}embeddings.ngrams.table",),
    "encoder.embeddings.position": ("{body}embeddings.position_embeddings",),
    "encoder.embeddings.segment": ("{body}embeddings.token_type_embeddings",),
    "encoder.embeddings.norm": ("{body}embeddings.LayerNorm",),
    "encoder.embeddings.project": ("{body}embeddings_project",),
    "encoder.layers.{i}.qkv": (
        "{body}encoder.layer.{i}.attention.self.query",
        "{body}encoder.layer.{i}.attention.self.key",
        "{body}encoder.layer.{i}.attention.self.value",
    ),
    "encoder.layers.{i}.out": ("{body}encoder.layer.{i}.attention.output.dense",),
    "encoder.layers.{i}.attention_norm": ("{body}encoder.layer.{i}.attention.output.LayerNorm",),
    "encoder.layers.{i}.up": ("{body}encoder.layer.{i}.intermediate.dense",),
    "encoder.layers.{i}.down": ("{body}encoder.layer.{i}.output.dense",),
    "encoder.layers.{i}.ffn_norm": ("{body}encoder.layer.{i}.output.LayerNorm",),
}
_BERT_HEAD = {"dense": ("{body}pooler.dense",), "output": ("classifier",)}
# The head that guesses words; its matrix is that of the embeddings.
_BERT_GUESS = {
    "guess.dense": ("cls.predictions.transform.dense",),
    "guess.norm": ("cls.predictions.transform.LayerNorm",),
    "guess": ("cls.predictions",),
}
_ROBERTA_HEAD = {"dense": ("classifier.dense",), "output": ("classifier.out_proj",)}
_BERT_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "segments": "type_vocab_size",
    "activation": "hidden_act",
    "norm_epsilon": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
NGRAMS_TYPE = "bert-ngrams"
_ROBERTA_FIXED = {"first_position": 2}

_DISTILBERT_NAMES = {
    "encoder.embeddings.word": ("{body}embeddings.word_embeddings",),
    "encoder.embeddings.position": ("{body}embeddings.position_embeddings",),
    "encoder.embeddings.norm": ("{body}embeddings.LayerNorm",),
    "encoder.layers.{i}.qkv": (
        "{body}transformer.layer.{i}.attention.q_lin",
        "{body}transformer.layer.{i}.attention.k_lin",
        "{body}transformer.layer.{i}.attention.v_lin",
    ),
    "encoder.layers.{i}.out": ("{body}transformer.layer.{i}.attention.out_lin",),
    "encoder.layers.{i}.attention_norm": ("{body}transformer.layer.{i}.sa_layer_norm",),
    "encoder.layers.{i}.up": ("{body}transformer.layer.{i}.ffn.lin1",),
    "encoder.layers.{i}.down": ("{body}transformer.layer.{i}.ffn.lin2",),
    "encoder.layers.{i}.ffn_norm": ("{body}transformer.layer.{i}.output_layer_norm",),
    "dense": ("pre_classifier",),
    "output": ("classifier",),
}
_DISTILBERT_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "max_positions": "max_position_embeddings",
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
}


def _roberta(architecture: str) -> Family:
    return Family(
        "roberta.", architecture, _BERT_BODY | _ROBERTA_HEAD, _BERT_FIELDS, _ROBERTA_FIXED
    )


FAMILIES = {
    "bert": Family(
        "bert.",
        "BertForSequenceClassification",
        _BERT_BODY | _BERT_HEAD | _BERT_GUESS,
        _BERT_FIELDS,
    ),
    # Ours: as "bert", Hugging Face's Auto classes would open such a folder and leave them out.
    NGRAMS_TYPE: Family(
        "bert.",
        "BertWithNgramsForSequenceClassification",
        _BERT_BODY | _BERT_HEAD | _BERT_GUESS,
        _BERT_FIELDS | {"ngrams": "ngram_rows"},
    ),
    "roberta": _roberta("RobertaForSequenceClassification"),
    "xlm-roberta": _roberta("XLMRobertaForSequenceClassification"),
    "camembert": _roberta("CamembertForSequenceClassification"),
    "electra": Family(
        "electra.",
        "ElectraForSequenceClassification",
        _BERT_BODY | _ROBERTA_HEAD,
        _BERT_FIELDS | {"embedding_size": "embedding_size"},
        {"head_activation": "gelu"},
    ),
    "distilbert": Family(
        "distilbert.",
        "DistilBertForSequenceClassification",
        _DISTILBERT_NAMES,
        _DISTILBERT_FIELDS,
        {"segments": 0, "head_activation": "relu", "norm_epsilon": 1e-12},
    ),
}


def read_config(content: Mapping[str, Any], where: str) -> EncoderConfig:
    """Our config from the content of a config.json; UserError names what is not supported."""
    family = family_of(content, where)
    position_type = content.get("position_embedding_type") or "absolute"
    if position_type != "absolute" or content.get("sinusoidal_pos_embds"):
        raise UserError(f"{where}: only learned absolute positions are supported.")
    if content.get("is_decoder"):
        raise UserError(f"{where}: is_decoder is set, but this is to be an encoder.")
    values = dict(family.fixed)
    for ours, theirs in family.fields.items():
        # Older folders leave out what has its default; only these fields have one everywhere.
        if theirs in content:
            values[ours] = content[theirs]
        elif ours not in ("dropout", "attention_dropout", "norm_epsilon", "segments"):
            raise UserError(f"{where}: the field {theirs} is missing.")
    if values["activation"] not in ACTIVATIONS:
        raise UserError(
            f"{where}: activation '{values['activation']}' is not supported; "
            f"supported are {', '.join(ACTIVATIONS)}."
        )
    ngrams = values.get("ngrams", 0)
    has_ngrams = isinstance(ngrams, int) and ngrams > 0
    if has_ngrams != (family is FAMILIES[NGRAMS_TYPE]):
        raise UserError(f"{where}: ngram_rows {ngrams!r} does not fit {content['model_type']}.")
    if values.get("embedding_size") == values["hidden_size"]:
        values["embedding_size"] = None
    # Theirs counts the rows of the table, ours the positions that can be used.
    values["max_positions"] -= values.get("first_position", 0)
    return EncoderConfig(**values)


def write_config(config: EncoderConfig, model_type: str) -> dict[str, Any]:
    """The architecture's fields of a config.json."""
    family = FAMILIES[model_type]
    content = {theirs: getattr(config, ours) for ours, theirs in family.fields.items()}
    content["max_position_embeddings"] = config.max_positions + config.first_position
    if "embedding_size" in content and content["embedding_size"] is None:
        content["embedding_size"] = config.hidden_size
    return content | {"model_type": model_type, "architectures": [family.architecture]}


def type_with_ngrams(model_type: str) -> str:
    """The model type of an encoder of this type to which n-grams are added."""
    if model_type not in ("bert", NGRAMS_TYPE):
        raise UserError(f"model.ngrams goes with encoders of BERT, not with {model_type}.")
    return NGRAMS_TYPE


def family_of(content: Mapping[str, Any], where: str) -> Family:
    model_type = content.get("model_type")
    if model_type not in FAMILIES:
        raise UserError(
            f"{where}: model_type {model_type!r} is not supported here; "
            f"supported are {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]
