"""genai_config.json, by which ONNX Runtime GenAI opens an exported decoder."""

import json
from collections.abc import Sequence
from pathlib import Path

from igla.model.decoder import DecoderConfig

GENAI_CONFIG = "genai_config.json"


def write_genai_config(folder: Path, file: str, config: DecoderConfig, ends: Sequence[int]) -> None:
    """Write it beside a graph.

    file  of the graph, in the folder
    ends  tokens that end a text; the first stands for what begins and fills texts as well, which
          GenAI wants named
    """
    layers = "past_key_values.%d", "present.%d"
    content = {
        "model": {
            # Of a decoder with a cache; GenAI asks no more of the name.
            "type": "llama",
            "bos_token_id": ends[0],
            "eos_token_id": [*ends],
            "pad_token_id": ends[0],
            "vocab_size": config.vocab_size,
            "context_length": config.max_positions,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": file,
                "head_size": config.head_dim,
                "hidden_size": config.hidden_size,
                "num_attention_heads": config.heads,
                "num_hidden_layers": config.layers,
                "num_key_value_heads": config.kv_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": f"{layers[0]}.key",
                    "past_value_names": f"{layers[0]}.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": f"{layers[1]}.key",
                    "present_value_names": f"{layers[1]}.value",
                },
            },
        },
        # The graph gives longer keys and values back; it writes into no buffer.
        "search": {"max_length": config.max_positions, "past_present_share_buffer": False},
    }
    text = json.dumps(content, indent=2)
    (folder / GENAI_CONFIG).write_text(text + "\n", encoding="utf-8")
