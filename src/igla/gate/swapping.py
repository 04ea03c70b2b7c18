"""The learning part of a gate's server: it keeps the learner running, and lets the version serve
that the pointer names."""

import asyncio
import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from math import nan
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge

from igla.errors import UserError
from igla.gate.comparison import compared, sticky
from igla.gate.home import Home
from igla.gate.learner_settings import LearnerSettings
from igla.gate.versions import Damaged, read_small
from igla.serve.models import Precision, Served, open_model
from igla.serve.service import Service

# Seconds between two looks at the pointer; before a learner that has ended is started again, at
# first and at most; and that one is given to end by itself.
_OFTEN, _SOON, _SELDOM, _GRACE = 0.5, 1.0, 60.0, 10.0
_LOG = logging.getLogger("uvicorn.error")


class LearnerMetrics:
    """What Prometheus is told of versions and of the learner."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, said: str, *labels: str) -> Gauge:
            return Gauge(f"igla_gate_{name}", said, labels, registry=registry)

        self.swaps = Counter(
            "igla_gate_swaps", "Times that another version came to serve.", registry=registry
        )
        self.serving = gauge("serving", "1 for the version that serves.", "version")
        self.up = gauge("learner_up", "Whether the learner runs, and without a fault.")
        self.new = gauge("new_feedback", "Feedback that no version has learned from.")
        self.alignment = gauge(
            "alignment", "Share of the latest 1,000 decisions that people agree with."
        )
        self.loss = gauge("mean_loss", "Exponential mean of the loss of decisions.")
        for unknown in (self.alignment, self.loss):
            unknown.set(nan)  # 0 would be an alarm before anybody has said anything
        self.drift = gauge("drift", "Stability index, or share of disagreement.", "of")
        self.alerts = gauge("drift_alert", "1 where there is drift.", "of")

    def serves(self, version: str) -> None:
        self.serving.clear()
        self.serving.labels(version).set(1)

    def learner(self, status: dict[str, Any], up: bool) -> None:
        """What the learner has said of itself last."""
        self.up.set(up and "fault" not in status)
        self.new.set(status.get("new", 0))
        alignment, drift = status.get("alignment", {}), status.get("drift", {})
        for gauge, name in ((self.alignment, "alignment"), (self.loss, "mean_loss")):
            if alignment.get(name) is not None:
                gauge.set(alignment[name])
        for name in ("scores", "tokens", "disagreement"):
            if drift.get(name) is not None:
                self.drift.labels(name).set(drift[name])
            self.alerts.labels(name).set(name in drift.get("alerts", ()))


@dataclass(frozen=True)
class Apprentice:
    """How the learner's process is started.

    told  what it is told at its start (process.told)
    """

    settings: LearnerSettings
    told: str

    async def start(self) -> asyncio.subprocess.Process:
        threads = str(self.settings.learning.threads)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "igla.gate.process",
            stdin=asyncio.subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": threads},
        )
        assert process.stdin is not None
        process.stdin.write(self.told.encode())
        await process.stdin.drain()
        return process


class Swapping:
    """An Extension of the server.

    name  of the model whose versions the gate's are
    """

    def __init__(
        self,
        home: Home,
        name: str,
        precision: Precision,
        apprentice: Apprentice | None,
        router: APIRouter,
    ):
        self.home = home
        self.name = name
        self.precision = precision
        self.apprentice = apprentice
        self.router = router
        self.metrics: LearnerMetrics | None = None
        self._refused: str | None = None
        self._unread: str | None = None  # why the pointer could not be read when last looked at
        self._second: Served | None = None
        self._share = 0.0
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def refusal(self, status: int, message: str) -> Response:
        return JSONResponse({"error": message}, status)

    def open(self) -> Served:
        """The version that the pointer names."""
        wanted = self.home.versions.serving().name
        return open_version(self.home, wanted, self.name, self.precision)

    async def start(self, service: Service) -> None:
        self.metrics = LearnerMetrics(service.metrics.registry)
        held = service.models.find(self.name)
        assert held is not None
        self.metrics.serves(held.version)
        service.steered[self.name] = (
            f"The gate decides which version of {self.name} serves: promote one, or roll back "
            "(igla gate promote, igla gate rollback, or POST /v1/gate/promote, /v1/gate/rollback)."
        )
        self._tasks = [asyncio.create_task(self._watch(service))]
        if self.apprentice is not None:
            self._tasks.append(asyncio.create_task(self._keep_running(self.apprentice)))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()  # upon which it ends
        try:
            await asyncio.wait_for(process.wait(), _GRACE)
        except TimeoutError:
            with suppress(ProcessLookupError):  # it has ended in this very moment
                process.kill()
            await process.wait()

    @property
    def running(self) -> bool:
        """Whether the learner's process runs."""
        return self._process is not None and self._process.returncode is None

    def status(self) -> dict[str, Any]:
        """What the learner has said of itself last; empty when it never has."""
        try:
            content = read_small(self.home.status)
        except Damaged:
            return {}
        return content if isinstance(content, dict) else {}

    async def _watch(self, service: Service) -> None:
        """Let the version serve that the pointer names, whenever it is another one."""
        assert self.metrics is not None
        while True:
            try:
                await self.follow(service)
                self._unread = None
            except (UserError, OSError) as error:  # the pointer cannot be read: it will be again
                if str(error) != self._unread:
                    _LOG.error("The gate's versions cannot be read: %s", error)
                self._unread = str(error)
            except Exception:  # whatever goes wrong, what serves goes on, and so does this
                _LOG.exception("A version of the gate could not be swapped in.")
            self.metrics.learner(self.status(), self.running)
            await asyncio.sleep(_OFTEN)

    async def follow(self, service: Service) -> None:
        """Load and swap in the version that the pointer names, if it is not the one that serves.

        A version that cannot be served leaves the old one answering, and is told of once.
        """
        if self._wanted(service) is not None:
            async with service.loading:
                wanted = self._wanted(service)
                if wanted is not None:  # nobody else has been asked for it meanwhile
                    await self._swap(service, wanted)
        await self._hold_second()

    async def _swap(self, service: Service, wanted: str) -> None:
        assert self.metrics is not None
        served = await self._opened(wanted)
        if served is None:
            return
        service.metrics.forget(service.models.put(served))
        self.metrics.swaps.inc()
        self.metrics.serves(wanted)

    async def _opened(self, version: str) -> Served | None:
        """A version, or None when it will not do, which is told once."""
        try:
            served = await asyncio.to_thread(
                open_version, self.home, version, self.name, self.precision
            )
        except UserError as error:
            self._refused = version
            _LOG.error("The gate's version %s does not serve: %s", version, error)
            return None
        self._refused = None
        return served

    async def _hold_second(self) -> None:
        """Hold the version that answers a share of who asks, while one does."""
        asked = compared(self.home)
        self._share = 0.0 if asked is None else asked.share
        if asked is None or not asked.share:
            self._second = None
        elif asked.second != self._refused and (
            self._second is None or self._second.version != asked.second
        ):
            self._second = await self._opened(asked.second)

    def pick(self, served: Served, who: str) -> Served:
        """Which version answers somebody who has not named one: the same one each time."""
        second = self._second
        if second is None or served.name != self.name:
            return served
        return second if sticky(who, second.version, self._share) else served

    def _wanted(self, service: Service) -> str | None:
        """The version that is to serve and does not."""
        wanted, held = self.home.versions.serving().name, service.models.find(self.name)
        serves = held is not None and held.version == wanted
        return None if serves or wanted == self._refused else wanted

    async def _keep_running(self, apprentice: Apprentice) -> None:
        pause = _SOON
        while True:
            started = asyncio.get_running_loop().time()
            try:
                self._process = await apprentice.start()
                code = str(await self._process.wait())
            except OSError as error:  # there is no memory for one, or it has ended at once
                code = str(error)
            lived = asyncio.get_running_loop().time() - started
            pause = _SOON if lived > _SELDOM else min(2 * pause, _SELDOM)
            _LOG.error("The gate's learner has ended (%s); it is started again.", code)
            await asyncio.sleep(pause)


def open_version(home: Home, version: str, name: str, precision: Precision) -> Served:
    """A whole version of a gate, under the version's own name; UserError for any other."""
    folder = home.versions.check(version)
    return replace(open_model(folder, name, precision), version=version)
