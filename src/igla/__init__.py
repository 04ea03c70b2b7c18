"""igla trains, aligns, shrinks and serves transformers on the machine one has."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igla.estimator import TextClassifier

# The threads that torch computes with wait for each other by spinning, for milliseconds by default.
# Beside any other process that made training thirty times slower; so short a wait costs a quiet
# machine nothing (docs/performance.md). It is read once, when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# torch then asks for huge pages for its large tensors: a third of the page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
__all__ = ["TextClassifier", "__version__"]


def __getattr__(name: str) -> Any:
    # Importing the package must stay cheap: torch comes in with the first use of what needs it.
    if name == "TextClassifier":
        from igla.estimator import TextClassifier

        return TextClassifier
    raise AttributeError(f"module 'igla' has no attribute '{name}'")
