"""The page at `/`: files, served as they are, that need nothing from elsewhere."""

from functools import partial
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",
}


def files(folder: Path, names: dict[str, str]) -> APIRouter:
    """Serves files of a folder, each at its path."""
    router = APIRouter(include_in_schema=False)
    for path, name in names.items():
        router.get(path)(partial(_file, folder / name))
    return router


async def _file(file: Path) -> FileResponse:
    return FileResponse(file, headers=_HEADERS)


_NAMES = ("page.css", "page.js", "common.js", "icon.svg")
router = files(
    Path(__file__).parent, {"/": "index.html", **{f"/page/{name}": name for name in _NAMES}}
)
