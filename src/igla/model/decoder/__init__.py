"""Decoders: one architecture of parts, and the Hugging Face folders that it reads and writes."""

from igla.model.decoder.attention import Attend, packed_causal
from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.decoder import Decoder
from igla.model.decoder.folder import load_decoder, save_decoder
from igla.model.decoder.packed import packed_states

__all__ = [
    "Attend",
    "Decoder",
    "DecoderConfig",
    "load_decoder",
    "packed_causal",
    "packed_states",
    "save_decoder",
]
