"""What `igla serve` does."""

import asyncio
import signal
import socket
import ssl
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from igla.errors import UserError
from igla.serve.admin import replace
from igla.serve.app import create_app
from igla.serve.early import settle
from igla.serve.keys import SCOPES, Doorkeeper, add_key, read_keys
from igla.serve.models import Served, open_model
from igla.serve.service import Service
from igla.serve.settings import Settings
from igla.terminal import plain_console


def serve(
    wheres: list[str],
    host: str,
    port: int,
    settings: Settings,
    keys: Path | None,
    certificate: tuple[Path, Path] | None,
    build: Callable[[list[Served], Settings, Doorkeeper | None], FastAPI] = create_app,
) -> None:
    """Serve runs or model folders until SIGTERM or SIGINT; SIGHUP loads them anew.

    wheres       folders, each as FOLDER or NAME=FOLDER
    keys         file of those who may ask; None: everybody
    certificate  files of the certificate and of its key, for https
    build        makes the application of the models, the settings and the keys
    """
    start = time.perf_counter()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to load anew
    if certificate is not None:
        _check_certificate(*certificate)
    with _bound(host, port) as listening:
        served = _opened(wheres, settings)
        kind = "http" if certificate is None else "https"
        address = f"{kind}://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        said = f"loaded in {time.perf_counter() - start:.1f} s; {address}"
        plain_console(stderr=True).print(said)
        config = uvicorn.Config(
            build(served, settings, None if keys is None else Doorkeeper(keys)),
            ssl_certfile=certificate and certificate[0],
            ssl_keyfile=certificate and str(certificate[1]),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=ceil(settings.limits.drain_seconds),
            server_header=False,
        )
        _Server(config).run(sockets=[listening])


def _opened(wheres: list[str], settings: Settings) -> list[Served]:
    """The models of folders, each of which is told of; UserError where one will not do."""
    console = plain_console(stderr=True)
    served = []
    for where in wheres:
        name, named, folder = where.partition("=")
        one = open_model(
            folder if named else where,
            name if named else "default",
            settings.precision,
            engine=settings.engine,
            provider=settings.provider,
            window=settings.window,
        )
        said = f"model {one.name} {one.version} in {one.precision}: {one.gives}"
        console.print(f"{said} ({one.where})")
        served.append(one)
    if settings.window is not None and not any(one.fills_masks for one in served):
        raise UserError("None of the models has learned to fill masks: there is no window to set.")
    if settings.engine != "torch" and not any(one.kind == "decoder" for one in served):
        raise UserError(f"engine {settings.engine} is for decoders, and none of the models is one.")
    return served


def print_new_key(path: Path, name: str, scopes: list[str], per_minute: int | None) -> None:
    """Make a key and print it, alone on stdout."""
    if per_minute is not None and per_minute < 1:
        raise UserError("--per-minute is at least 1.")
    known = tuple(scope for scope in SCOPES if scope in scopes)
    if unknown := set(scopes) - set(SCOPES):
        raise UserError(f"There is no scope {min(unknown)}; there are {', '.join(SCOPES)}.")
    print(add_key(path, name, known, per_minute))
    plain_console(stderr=True).print(f"key {name} added to {path}; it is shown this once")


def print_keys(path: Path) -> None:
    """A line a key: its name, what it is for, how often."""
    for key in read_keys(path):
        often = "any number" if key.per_minute is None else f"{key.per_minute} a minute"
        print(f"{key.name}\t{','.join(key.scopes)}\t{often}")


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address, taken before anything is loaded; the server listens at it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:  # the latter of a name that is no host's
        why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise UserError(f"{host}:{port} cannot be listened at: {why}.") from None
    return listening


def _check_certificate(certificate: Path, key: Path) -> None:
    for file in (certificate, key):
        if not file.is_file():
            raise UserError(f"There is no file {file}.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise UserError(
            f"{certificate} and {key} are no certificate with its key: {error}"
        ) from None


# Requests on their way when a server is told to end: so long they are still read, and refused.
_LINGER = 1.0


class _Server(uvicorn.Server):
    """Says that it takes no more requests from the moment that it is told to end; loads its models
    anew when it is told to."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn cuts connections from which nothing was read yet, also when something has come.
        await asyncio.sleep(_LINGER)
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        service = self.config.app.state.service  # type: ignore[union-attr]
        again: set[asyncio.Task[None]] = set()  # asyncio itself keeps no hold on a task

        def load_again() -> None:
            task = asyncio.ensure_future(_load_again(service))
            again.add(task)
            task.add_done_callback(again.discard)

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, load_again)
        settle()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.service.draining = True  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


async def _load_again(service: Service) -> None:
    """Each model from the folder that it came from; one that cannot be served stays as it is."""
    console = plain_console(stderr=True)
    for name in dict.fromkeys(one.name for one in service.models.all):
        try:
            served = await replace(service, name)
        except UserError as error:
            console.print(f"model {name} is not loaded anew: {error}")
        else:
            console.print(f"model {served.name} {served.version} ({served.where})")
