"""Word embeddings from how often words stand near each other.

The matrix of positive pointwise mutual information, factored: what word2vec's skip-gram factors
implicitly (Levy & Goldberg 2014), with the settings that Levy, Goldberg & Dagan 2015 found to
matter (near words count more, contexts smoothed by α = 0.75, singular values to the power ½). It
takes one pass of counting over the texts and no gradient, a minute for twenty million tokens,
and a transformer that starts from it need not learn from the loss which words are alike.

Shape suffixes: V vocabulary, H width.
"""

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from igla.data.store import TokenStore

# Of all that decides about the result, for what is kept of it.
VERSION = 1
# Words at most so far apart are near; at distance d they count 1/d.
WINDOW = 5
SMOOTHING = 0.75
# Of a piece that occurs less often too little is known.
FEWEST = 5


def cooccurrence_embeddings(
    store: TokenStore, rows: np.ndarray, special_V: np.ndarray, width: int
) -> np.ndarray:
    """Embeddings [V, width] float32 of the tokens of the given rows of a store.

    special_V  [V] bool, tokens that are no words

    The root mean square is 1. Rows of zeros belong to special tokens, and to those that occur fewer
    than FEWEST times or near nothing.
    """
    association_VV = _positive_mutual_information(_count(store, rows, special_V))
    rank = min(width, len(special_V) - 1)
    left, values, _ = randomized_svd(association_VV, rank, n_iter=2, random_state=0)
    embeddings_VH = np.zeros((len(special_V), width), dtype=np.float32)
    embeddings_VH[:, :rank] = left * np.sqrt(values)
    known = (store.occurrences(rows, len(special_V)) >= FEWEST) & (
        association_VV.getnnz(axis=1) > 0
    )
    embeddings_VH[~known] = 0
    if known.any():
        embeddings_VH /= np.sqrt(np.square(embeddings_VH[known]).mean())
    return embeddings_VH


def _count(store: TokenStore, rows: np.ndarray, special_V: np.ndarray) -> sparse.csr_matrix:
    """[V, V] weighted counts of near pairs, both ways."""
    vocabulary = len(special_V)
    total_VV = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float32)
    for tokens, sequence in store.stretches(rows):
        ordinary = ~special_V[tokens]
        for distance in range(1, WINDOW + 1):
            near = sequence[distance:] == sequence[:-distance]
            near &= ordinary[distance:] & ordinary[:-distance]
            pair = tokens[:-distance][near] * vocabulary + tokens[distance:][near]
            pair, number = np.unique(pair, return_counts=True)
            found = (number.astype(np.float32) / distance, divmod(pair, vocabulary))
            total_VV = total_VV + sparse.csr_matrix(found, shape=total_VV.shape)
    return total_VV + total_VV.T


def _positive_mutual_information(counts_VV: sparse.csr_matrix) -> sparse.csr_matrix:
    """log (#(w, c)·Σ#(·)^α / (#(w)·#(c)^α)), where that is positive."""
    near = counts_VV.tocoo()
    totals_V = np.asarray(counts_VV.sum(axis=1)).ravel()
    smoothed_V = totals_V**SMOOTHING
    smoothed_V /= max(smoothed_V.sum(), 1)
    information = np.log(near.data / (totals_V[near.row] * smoothed_V[near.col]))
    positive = information > 0
    found = (information[positive].astype(np.float32), (near.row[positive], near.col[positive]))
    return sparse.csr_matrix(found, shape=counts_VV.shape)
