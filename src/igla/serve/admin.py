"""Loading and unloading models while the server runs."""

import asyncio

from fastapi import Request

from igla.errors import UserError
from igla.serve.models import Served, open_model
from igla.serve.service import Refused, Service


class Steered(UserError):
    """A model that something else loads; see Service.steered."""


async def load(service: Service, request: Request, name: str, where: str | None) -> Served:
    """Let a run or a folder answer under a name from now on; see `replace`."""
    service.check_admin(request)
    service.check_ready()
    try:
        return await replace(service, name, where)
    except Steered as why:
        raise Refused(409, str(why)) from None
    except UserError as error:
        raise Refused(422, str(error)) from None


def unload(service: Service, request: Request, name: str, version: str | None) -> list[Served]:
    """Take a version of a model away, or all of them. What it has accepted it still answers."""
    service.check_admin(request)
    served = service.model(name, version)
    if name in service.steered and served is service.model(name):
        raise Refused(409, service.steered[name])
    try:
        going = service.models.drop(name, version)
    except UserError as error:
        raise Refused(409, str(error)) from None
    service.metrics.forget(going)
    return going


async def replace(service: Service, name: str, where: str | None = None) -> Served:
    """Load what a name is to stand for: a folder, or anew the one that it was loaded from.

    One at a time, beside the work of the server. UserError when it cannot be served, and then the
    old version goes on answering; Steered where something else decides what serves.
    """
    if name in service.steered:
        raise Steered(service.steered[name])
    async with service.loading:
        if where is None:
            held = service.models.find(name)
            if held is None:
                raise UserError(f"There is no model {name} here: say from which folder it comes.")
            where = str(held.where)
        how = service.settings
        served = await asyncio.to_thread(
            open_model,
            where,
            name,
            how.precision,
            engine=how.engine,
            provider=how.provider,
            window=how.window,
        )
        service.metrics.forget(service.models.put(served))
        return served
