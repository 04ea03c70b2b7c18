"""Embeddings of a new vocabulary from those of an old one.

Shape suffixes: V new vocabulary, O old one, H width, G width of the guiding embeddings.
"""

import numpy as np
import torch
from tokenizers import Tokenizer, decoders
from torch import Tensor

# FOCUS weighs similarities by sparsemax; these are the most similar ones by softmax.
NEIGHBOURS, SHARPNESS = 10, 10.0
_AT_ONCE = 1024
_ROLES = (
    ("[PAD]", "<pad>"),
    ("[UNK]", "<unk>"),
    ("[CLS]", "<s>"),
    ("[SEP]", "</s>"),
    ("[MASK]", "<mask>"),
)


def shared_tokens(new: Tokenizer, old: Tokenizer) -> Tensor:
    """[V] the old number of each new token that both vocabularies have, −1 for the others.

    Ordinary tokens are the same where text and place are, whether a vocabulary marks what begins a
    word or what goes on with one; special tokens where they are for the same.
    """
    known = {place: number for number, place in _places(old).items()}
    found = torch.full((new.get_vocab_size(),), -1)
    for number, place in _places(new).items():
        found[number] = known.get(place, -1)
    return found


def _places(tokenizer: Tokenizer) -> dict[int, tuple[str, bool]]:
    """Of each token its text, and whether it begins a word; of a special one what it is for."""
    vocabulary = tokenizer.get_vocab()
    roles = {name: (names[0], True) for names in _ROLES for name in names}
    in_bytes = any(token.startswith("\u0120") for token in vocabulary)  # as in GPT-2
    spaced = any(token.startswith("\u2581") for token in vocabulary)  # SentencePiece
    found = {}
    for token, number in vocabulary.items():
        if token in roles:
            found[number] = roles[token]
        elif in_bytes:
            text = decoders.ByteLevel().decode([token])
            found[number] = text.removeprefix(" "), text.startswith(" ")
        elif spaced:
            found[number] = token.removeprefix("\u2581"), token.startswith("\u2581")
        else:
            found[number] = token.removeprefix("##"), not token.startswith("##")
    return found


def by_pieces(new: Tokenizer, old: Tokenizer, old_OH: Tensor, shared_V: Tensor) -> Tensor:
    """[V, H]: a shared token's own row; of another, the mean over the old pieces of its text."""
    result_VH = _alike(old_OH, shared_V)
    unknown = {old.token_to_id(name) for name in ("[UNK]", "<unk>")}
    for number, (text, _) in _places(new).items():
        if shared_V[number] >= 0:
            continue
        ids = [one for one in old.encode(text, add_special_tokens=False).ids if one not in unknown]
        if ids:
            result_VH[number] = old_OH[ids].mean(dim=0)
    return result_VH


def by_similarity(old_OH: Tensor, shared_V: Tensor, guide_VG: np.ndarray) -> Tensor:
    """[V, H]: a shared token's own row; of another, a mean over the shared tokens that are most
    like it by guiding embeddings of the new vocabulary (FOCUS: Dobler & de Melo 2023).

    guide_VG  rows of zeros belong to tokens of which too little is known
    """
    guide = torch.from_numpy(guide_VG)
    known_V = guide.any(dim=1)
    guide = torch.nn.functional.normalize(guide, dim=1)
    anchors = (known_V & (shared_V >= 0)).nonzero().flatten()
    result_VH = _alike(old_OH, shared_V)
    others = (known_V & (shared_V < 0)).nonzero().flatten()
    if not len(anchors):
        return result_VH
    for part in others.split(_AT_ONCE):
        likeness = guide[part] @ guide[anchors].T
        nearest, which = likeness.topk(min(NEIGHBOURS, len(anchors)), dim=1)
        weights = (SHARPNESS * nearest).softmax(dim=1)
        result_VH[part] = torch.einsum("pk,pkh->ph", weights, old_OH[shared_V[anchors[which]]])
    return result_VH


def _alike(old_OH: Tensor, shared_V: Tensor) -> Tensor:
    """[V, H] shared rows, the others drawn with the old rows' mean and spread."""
    noise = torch.randn(len(shared_V), old_OH.shape[1])
    drawn_VH = old_OH.mean(dim=0) + old_OH.std(dim=0) * noise
    return torch.where((shared_V >= 0)[:, None], old_OH[shared_V.clamp(min=0)], drawn_VH)
