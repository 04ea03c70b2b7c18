"""igla trains, aligns, shrinks and serves transformers on the machine one has."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igla.estimator import TextClassifier

__version__ = "0.1.0"
__all__ = ["TextClassifier", "__version__"]


def __getattr__(name: str) -> Any:
    # Importing the package must stay cheap: torch comes in with the first use of what needs it.
    if name == "TextClassifier":
        from igla.estimator import TextClassifier

        return TextClassifier
    raise AttributeError(f"module 'igla' has no attribute '{name}'")
