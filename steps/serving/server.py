"""Put a server together, and run it until it is told to end."""

import asyncio
import errno
import logging
import math
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import FrameType

import mlflow
import uvicorn
from fastapi import FastAPI

from steps.config import isolation
from steps.config.root import Config
from steps.core import processes, visible
from steps.core.errors import ConfigError, StepError
from steps.registry import target
from steps.registry.client import RegistryClient
from steps.serving.alias_lookup import AliasLookup
from steps.serving.answered import nowhere
from steps.serving.app import application
from steps.serving.completions import Completions
from steps.serving.follower import Follower
from steps.serving.keys import ApiKeys
from steps.serving.metrics import Metrics
from steps.serving.model_cache import ModelCache
from steps.serving.routes import routes_of
from steps.serving.status import Status
from steps.serving.threads import in_thread
from steps.serving.traces import writer_of
from steps.serving.webhook import AliasWebhook
from steps.snapshots.store_folder import StoreFolder

log = logging.getLogger(__name__)

REGISTRY_SECONDS = 5.0  # that one question to the registry may be repeated
BACKLOG = 2048  # connections that wait to be taken, as uvicorn has it
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# seconds from when answers that are not whole are given up to when connections are cut
CUT_SECONDS = 5


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: a setting that cannot be had here.
        StepError: the address is taken.
    """
    isolation.heed("serve.isolation", config.serve.isolation, processes.missing())
    listener = _listener(config.serve.host, config.serve.port)
    try:
        app = build(config)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log.info("listening on http://%s:%d (chat page, /v1, /readyz, /metrics)", shown, port)
        server = Server(app, config.serve.shutdown_seconds)
        # uvicorn ends at these, and raises them once more for whoever handled them before
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # a terminal that is closed
            signal.signal(signal.SIGHUP, server.handle_exit)
        server.run(sockets=[listener])
        log.info("ended")
    finally:
        listener.close()


class Server(uvicorn.Server):
    """uvicorn's server, which tells the application at once when it is told to end: answers that
    are not whole in time are then ended in OpenAI's form, before connections are cut.
    """

    def __init__(self, app: FastAPI, shutdown_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(shutdown_seconds) + CUT_SECONDS,
            )
        )
        self._ending: asyncio.Event = app.state.ending
        self._shutdown_seconds = shutdown_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            log.info(
                "told to end by %s: answers on their way have %g s",
                signal.Signals(sig).name,
                self._shutdown_seconds,
            )
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)


def build(config: Config) -> FastAPI:
    """The application that a config describes.

    Raises:
        ConfigError: a setting that cannot be had here.
    """
    _hide_keys(config.serve.api_keys_file)
    keys = ApiKeys(config.serve.api_keys_file, config.serve.api_keys_env)
    if config.serve.host not in LOOPBACK and not keys.required:
        log.warning(
            "serve.host=%s: everybody who reaches it may ask; serve.api_keys_file asks for a key",
            config.serve.host,
        )
    metrics, routes = Metrics(), routes_of(models_of(config), config.serve)
    metrics.watch(routes)
    root = StoreFolder(config.store.path).root / "serving"
    models = ModelCache(root, mlflow.get_registry_uri())
    lookup = AliasLookup(routes, _registry, config.serve, metrics)
    follower = Follower(routes, lookup, models, config.serve, metrics)
    secret = os.environ.get(config.serve.webhook_secret_env, "")
    webhook = AliasWebhook(secret) if secret else None

    ending = asyncio.Event()

    async def end_late_answers() -> None:
        await ending.wait()
        await asyncio.sleep(config.serve.shutdown_seconds)
        await follower.close()

    traces = writer_of(config, metrics.traced)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        beside = [asyncio.create_task(follower.run()), asyncio.create_task(end_late_answers())]
        if traces is not None:
            traces.start()
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await follower.close()
            if traces is not None:
                await in_thread(traces.close)

    trace = nowhere if traces is None else traces.offer
    completions = Completions(config.serve, routes, metrics, keys, trace)
    status = Status(config.serve, routes, follower, metrics, keys, webhook)
    app = application(completions, status, metrics, config.serve, lifespan)
    app.state.ending = ending
    return app


def _hide_keys(file: str | None) -> None:
    """Keep the file of keys from the models, with the folder that it lies in: a file that is
    replaced by another is no longer hidden where the one before was.
    """
    if file is None:
        return
    folder = Path(file).expanduser().absolute().parent
    needed = (Path.cwd(), Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir()))
    if len(folder.parts) > 2 and not any(one.is_relative_to(folder) for one in needed):
        visible.keep_folder(folder)
        return
    visible.keep(file)
    log.warning(
        "serve.api_keys_file=%s: put it into a folder of its own, which is hidden from the models;"
        " a file that is replaced in this one is not",
        file,
    )


@cache
def _registry() -> RegistryClient:
    """The registry; a database that is away cannot even be opened, so this is called when it is
    asked.
    """
    return RegistryClient(REGISTRY_SECONDS, moves=False)


def models_of(config: Config) -> dict[str, list[str | None]]:
    """Aliases by registered model, of ``serve.models``, ``target``, or the config's model; None
    where it is named without one.

    Raises:
        ConfigError: not a registered model or an alias of one.
    """
    wanted = list(config.serve.models)
    asked: dict[str, list[str | None]] = {}
    if not wanted:
        one = target.parse(config.target, config)
        _require_no_version("target", one)
        asked[one.name] = [one.alias or None]
    for text in wanted:
        try:
            one = target.parse(text, config)
        except ConfigError as error:
            raise ConfigError(
                "serve.models", text, "models:/<name> or models:/<name>@<alias>", error.cure
            ) from error
        _require_no_version("serve.models", one)
        aliases = asked.setdefault(one.name, [])
        aliases += [one.alias or None] if (one.alias or None) not in aliases else []
    return asked


def _require_no_version(key: str, one: target.Target) -> None:
    if one.version is not None:
        raise ConfigError(
            key,
            one.uri,
            "models:/<name> or models:/<name>@<alias>, as a server follows aliases",
            f"set an alias: MlflowClient().set_registered_model_alias({one.name!r}, 'mine',"
            f" {one.version})",
        )


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off for sockets that say they are TCP: else a token would
    # wait for the acknowledgement of the one before
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        cure = "pass an address of this machine, such as serve.host=127.0.0.1 or serve.host=::1"
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            cure = "pass another serve.port=…, or serve.port=0, which takes a free one"
            cure += " (make serve PORT=0)"
        raise StepError(
            f"serve.host={host} serve.port={port}: the address cannot be listened on ({error});"
            f" {cure}"
        ) from error
    return listener
