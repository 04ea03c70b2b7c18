"""The page at `/gate`: the review queue, versions, and how learning goes."""

from pathlib import Path

from igla.serve.page import files

_NAMES = ("gate.css", "gate.js", "curve.js", "signs.js")
router = files(
    Path(__file__).parent, {"/gate": "gate.html", **{f"/page/{name}": name for name in _NAMES}}
)
