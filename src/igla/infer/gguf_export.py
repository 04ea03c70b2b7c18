"""Decoders as GGUF files, which llama.cpp and what is built on it read.

    model.gguf: sizes, tokenizer (infer/gguf_vocabulary.py), and the weights under llama.cpp's names

Written are decoders whose layers are Llama's: RMSNorm before each part, rotated positions, SwiGLU,
with biases or not; with norms of queries and keys too, which llama.cpp knows as Qwen3's. All that
llama.cpp would compute otherwise than igla is refused.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from igla.errors import UserError
from igla.infer.gguf_vocabulary import Vocabulary
from igla.model.decoder import Decoder, DecoderConfig
from igla.model.decoder.config import DynamicScaling
from igla.model.decoder.position import rope_frequencies
from igla.ops.weights import Precision

MODEL_FILE = "model.gguf"
# Their names of our modules; a layer's follow its number.
_NAMES = {
    "words": "token_embd",
    "norm": "output_norm",
    "head": "output",
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.out": "attn_output",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "ffn_norm": "ffn_norm",
    "ffn.gate": "ffn_gate",
    "ffn.up": "ffn_up",
    "ffn.down": "ffn_down",
}
# What a precision is of matrices, and of a file.
_TYPES = {"float32": "F32", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
_FILES = {"float32": "ALL_F32"} | {
    precision: f"MOSTLY_{kind}" for precision, kind in _TYPES.items() if kind != "F32"
}
_GROUP = 32  # weights that share a scale in Q8_0 and Q4_0


def gguf() -> Any:
    """The library; UserError where it is not installed."""
    try:
        import gguf as library
    except ImportError:
        raise UserError("GGUF files need the package gguf, a part of igla[llamacpp].") from None
    return library


def export_gguf(
    model: Decoder,
    folder: Path,
    precision: Precision = "float32",
    vocabulary: Vocabulary | None = None,
) -> Path:
    """Write the file into an existing folder.

    precision   of the matrices: int8 is Q8_0 and int4 Q4_0, in which the head and the table of
                words keep 8 bits. Norms and biases are float32.
    vocabulary  None: the file is for token ids alone

    Raises UserError for a decoder that llama.cpp would compute otherwise.
    """
    library, config = gguf(), model.config
    _check(config, precision)
    file, making = folder / MODEL_FILE, folder / f".{MODEL_FILE}.unfinished"
    writer = library.GGUFWriter(making, "qwen3" if config.qk_norm else "llama")
    try:
        _write_sizes(writer, config)
        if vocabulary is None:
            writer.add_tokenizer_model("none")
        else:
            vocabulary.write(writer, library.TokenType, config.vocab_size)
        writer.add_file_type(library.LlamaFileType[_FILES[precision]])
        for name, tensor in _tensors(model):
            kind = library.GGMLQuantizationType[_type(name, tensor, precision)]
            writer.add_tensor(name, library.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    making.replace(file)
    return file


def _check(config: DecoderConfig, precision: Precision) -> None:
    plain = (
        config.position == "rope"
        and config.norm == "rms"
        and config.norm_placement == "pre"
        and config.feed_forward == "swiglu"
        and config.experts is None
        and not config.is_recurrent
    )
    if not plain:
        raise UserError("Only decoders with the layers of Llama or Qwen3 are written as GGUF.")
    if config.sliding_window is not None:
        raise UserError("llama.cpp would leave out the sliding window: it is not written as GGUF.")
    if config.qk_norm and (config.out_bias or config.ffn_bias or config.rope_scaling is not None):
        raise UserError(
            "llama.cpp knows norms of queries and keys only where positions are not scaled and "
            "nothing behind them has a bias."
        )
    if isinstance(config.rope_scaling, DynamicScaling):
        raise UserError("llama.cpp scales no positions by the length of a text (dynamic).")
    widths = (config.hidden_size, config.heads * config.head_dim, config.intermediate_size)
    if precision in ("int8", "int4") and any(width % _GROUP for width in widths):
        raise UserError(f"Widths of {widths} are no multiples of {_GROUP}: {precision} needs that.")


def _write_sizes(writer: Any, config: DecoderConfig) -> None:
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    factor = rope_frequencies(config)[1]
    if factor != 1:
        writer.add_rope_scaling_attn_factors(factor)


def _tensors(model: Decoder) -> Iterator[tuple[str, Tensor]]:
    """All weights, float32, under llama.cpp's names."""
    config = model.config
    for name, value in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        tensor = value.detach().float().cpu().contiguous()
        if not module.startswith("layers."):
            yield f"{_NAMES[module]}.{kind}", tensor
            continue
        _, layer, inside = module.split(".", 2)
        if inside in ("attention.q", "attention.k") and not config.qk_norm:
            tensor = _side_by_side(tensor, config.head_dim)
        yield f"blk.{layer}.{_NAMES[inside]}.{kind}", tensor
    if config.rope_scaling is not None:
        # Any scaling that does not hang on the text: what each angle is divided by.
        unscaled = rope_frequencies(replace(config, rope_scaling=None))[0]
        yield "rope_freqs.weight", unscaled / rope_frequencies(config)[0]


def _side_by_side(tensor: Tensor, width: int) -> Tensor:
    """Rows of queries or keys in the order of llama.cpp's Llama: the two that are turned together
    lie side by side, and not half a head apart as in folders of Hugging Face."""
    pairs = tensor.reshape(-1, 2, width // 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape).contiguous()


def _type(name: str, tensor: Tensor, precision: Precision) -> str:
    if tensor.ndim < 2:
        return "F32"
    if precision == "int4" and name in ("token_embd.weight", "output.weight"):
        return _TYPES["int8"]
    return _TYPES[precision]
