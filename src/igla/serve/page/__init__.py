"""The page at `/`: three files, served as they are, that need nothing from elsewhere."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

_FOLDER = Path(__file__).parent
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",
}

router = APIRouter(include_in_schema=False)


def _serve(path: str, name: str) -> None:
    async def file() -> FileResponse:
        return FileResponse(_FOLDER / name, headers=_HEADERS)

    router.get(path)(file)


_serve("/", "index.html")
for _name in ("page.css", "page.js", "icon.svg"):
    _serve(f"/page/{_name}", _name)
