"""Mixers of linear cost in place of a layer's attention: what a token learns of those before it
passes through a state of fixed size."""

from igla.model.decoder.mixers.gated import GatedLinearAttention
from igla.model.decoder.mixers.memory import GrowingMemory, Kept, Memory, PackedMemory
from igla.model.decoder.mixers.space import StateSpace

__all__ = ["GatedLinearAttention", "GrowingMemory", "Kept", "Memory", "PackedMemory", "StateSpace"]
