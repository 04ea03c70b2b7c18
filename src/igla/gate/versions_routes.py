"""The gate's routes for versions: what there is and why, promote, roll back, learn now."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import SQLAlchemyError

from igla.errors import UserError
from igla.gate import operating, retiring
from igla.gate.command_versions import report
from igla.gate.gate import refusal
from igla.gate.routes import Short
from igla.gate.swapping import Swapping
from igla.gate.versions import Damaged
from igla.serve.service import Refused, route_class, service_of

T = TypeVar("T")

router = APIRouter(prefix="/v1/gate", route_class=route_class(refusal), tags=["Gate"])


class VersionRequest(BaseModel):
    """version  the one to serve; of a rollback none: the one that the serving one was made from"""

    model_config = ConfigDict(extra="forbid")
    version: str | None = None


@router.get("/versions")
async def versions(request: Request) -> dict[str, Any]:
    """All versions, the newest first, with what they were judged by and why, and the learner."""
    service_of(request).check_key(request, "feedback")
    swapping = swapping_of(request)
    with _refusals():
        found = await asyncio.to_thread(report, swapping.home)
    return found | {"learner": swapping.status() | {"running": swapping.running}}


@router.post("/rollback")
async def rollback(request: Request, body: VersionRequest) -> dict[str, Any]:
    """Let an earlier version serve; needs a key for admin. Answered when it does."""
    return {"serving": await _acted(request, operating.roll_back, body.version)}


@router.post("/promote")
async def promote(request: Request, body: VersionRequest) -> dict[str, Any]:
    """Let any version serve, one that was rejected too; needs a key for admin."""
    if body.version is None:
        raise Refused(400, "Name the version that is to serve.")
    return {"serving": await _acted(request, operating.promote, body.version)}


class CompareRequest(BaseModel):
    """share  of who asks, that this version answers; 0: it only looks on"""

    model_config = ConfigDict(extra="forbid")
    version: str
    share: float = 0.0


@router.post("/compare")
async def begin_comparing(request: Request, body: CompareRequest) -> dict[str, Any]:
    """Compare a version with the one that serves, on the feedback from now on; needs a key for
    admin. What is found is in the learner's part of /versions."""
    begun = await _acted(request, operating.begin_comparing, body.version, body.share)
    return asdict(begun)


@router.delete("/compare")
async def end_comparing(request: Request) -> dict[str, Any]:
    """Let the version that serves answer everybody again; needs a key for admin."""
    await _acted(request, operating.stop_comparing)
    return {"compared": False}


class RetireRequest(BaseModel):
    """undo  let them count again"""

    model_config = ConfigDict(extra="forbid")
    slice: Short
    undo: bool = False


@router.post("/retire")
async def retire(request: Request, body: RetireRequest) -> dict[str, Any]:
    """Let older rows and lessons of a slice count no more, as its policy has changed; needs a key
    for admin."""
    if body.undo:
        await _acted(request, retiring.restore, body.slice)
        return {"retired": False}
    return {"retired": True, "rows": await _acted(request, retiring.retire, body.slice)}


@router.post("/learn")
async def learn(request: Request) -> dict[str, Any]:
    """Begin a round with whatever feedback is new; needs a key for admin."""
    await _acted(request, operating.ask_for_a_round)
    return {"asked": True}


def swapping_of(request: Request) -> Swapping:
    """The learning part of the server that a request is for."""
    found: Swapping = request.app.state.swapping
    return found


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Damaged as error:
        raise Refused(503, str(error)) from None
    except UserError as error:
        raise Refused(409, str(error)) from None
    except OSError as error:  # as of a full disk
        said = f"The gate's folder cannot be written: {error.strerror}."
        raise Refused(503, said, retry_after=1.0) from None


async def _acted(request: Request, act: Callable[..., T], *words: object) -> T:
    """Let an operator act (see operating), and the server follow; Refused when that cannot be."""
    service, swapping = service_of(request), swapping_of(request)
    actor = service.check_admin(request)
    log = request.app.state.gate.log
    with _refusals():
        try:
            done = await asyncio.to_thread(act, swapping.home, log, actor, *words)
        except SQLAlchemyError:
            await swapping.follow(service)
            said = "It is done, but the log cannot be written: the audit trail does not say so."
            raise Refused(503, said) from None
        await swapping.follow(service)
    return done
