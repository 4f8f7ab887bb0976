"""One version that is served: its bytes, its worker, and what becomes of both."""

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steps.config.serve import ServeConfig
from steps.core.redaction import redact
from steps.serving.admission import Admission
from steps.serving.errors import ApiError
from steps.serving.first_answer import hear_first_answer
from steps.serving.served_version import ServedVersion
from steps.serving.threads import within
from steps.serving.worker_process import LoadFailedError, WorkerGoneError, WorkerProcess

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a worker that ended is started again
TEXTS = ("content", "reasoning_content", "tool_calls")  # what a delta brings
ATTEMPTS = 2  # of a request whose worker ended before anything was sent
DRAIN_GRACE = 2.0  # seconds for requests that chose the version and have no place yet
DRAIN_LOOK = 0.05  # seconds between two looks at the answers on their way
LOOK_SECONDS = 1.0  # between two looks at a worker
STEADY_SECONDS = 60.0  # a worker that lived so long did not end for how it was started
# a worker sends a word every five seconds, whatever its model does
HUNG_SECONDS, SILENT_LOOKS = 30.0, 3


class Deployment:
    """A version with its worker. A worker that ends is replaced while the version is served.

    Args:
        version: what is served.
        folder: its bytes.
        config: limits.
        replaced: called when a worker ended and is started again.
    """

    def __init__(
        self,
        version: ServedVersion,
        folder: Path,
        config: ServeConfig,
        replaced: Callable[[ServedVersion], None] = lambda _: None,
    ) -> None:
        self.version, self.folder = version, folder
        self.admission = Admission(1, config.max_waiting)
        self._config, self._replaced = config, replaced
        self.worker: WorkerProcess | None = None
        self._up = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._closing = False
        self.trouble = ""  # why there is no worker just now
        self._held = 0  # responses that will ask it again

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now."""
        up = self.worker is not None and not self.worker.gone.is_set()
        return up and self._up.is_set() and not self._closing

    @property
    def lost(self) -> bool:
        """Whether its worker is gone and cannot be started again, as its files were removed."""
        return not self.ready and not self._closing and not self.folder.is_dir()

    async def open(self) -> None:
        """Start the worker and hear its first answer.

        Raises:
            LoadFailedError: it cannot be loaded, or does not answer.
        """
        await self._start()
        self._keeping = asyncio.create_task(self._keep())

    async def _start(self) -> None:
        began = time.monotonic()
        scratch = Path(tempfile.mkdtemp(prefix="slm-serve-"))
        worker = await WorkerProcess.start(
            self.folder,
            scratch,
            model_config={
                "name": self.version.name,
                "request_timeout": self._config.request_timeout,
                **({"threads": self._config.threads} if self._config.threads else {}),
            },
            memory_limit_bytes=self._config.memory_limit_bytes,
            timeout=self._config.load_timeout,
        )
        left = max(self._config.load_timeout - (time.monotonic() - began), 1.0)
        try:
            await hear_first_answer(worker, left)
        except BaseException:
            await worker.stop()
            raise
        limit = self._config.memory_limit_bytes
        if limit and (held := worker.resident()) > limit:
            await worker.stop()
            raise LoadFailedError(_too_large(held, limit))
        self.worker = worker
        self.admission.resize(worker.capacity)
        self._up.set()
        self.trouble = ""
        log.info(
            "%s: ready after %.1f s (worker %d)",
            self.version.uri,
            time.monotonic() - began,
            worker.pid,
        )

    async def _keep(self) -> None:
        """Start the worker again whenever it has ended; later, where it ends soon each time."""
        pause = FIRST_PAUSE
        while True:  # until it is cancelled
            assert self.worker is not None
            began = time.monotonic()
            await self._until_gone(self.worker)
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._up.clear()
            self.trouble = self.worker.reason
            log.error(
                "%s: the worker is gone (%s); it is started again; its log ends: %s",
                self.version.uri,
                self.worker.reason,
                self.worker.tail(),
            )
            self._replaced(self.version)
            await self.worker.stop()
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    await self._start()
                    break
                except Exception as error:  # noqa: BLE001 - whatever it is, it may pass
                    self.trouble = redact(str(error)) or type(error).__name__
                    log.error(
                        "%s: %s; tried again in %.0f s", self.version.uri, self.trouble, pause
                    )

    async def _until_gone(self, worker: WorkerProcess) -> None:
        """Wait for a worker's end, and end one that holds too much memory or hangs."""
        limit, silent = self._config.memory_limit_bytes, 0
        while not worker.gone.is_set():
            if await within(LOOK_SECONDS, worker.gone):
                return
            # several looks: after a pause of the whole machine its words come with the next one
            silent = silent + 1 if time.monotonic() - worker.heard > HUNG_SECONDS else 0
            if silent >= SILENT_LOOKS:
                worker.reason = f"it hung: not a word of it within {HUNG_SECONDS:.0f} s"
                await worker.stop()
            elif limit and (held := worker.resident()) > limit:
                worker.reason = _too_large(held, limit)
                await worker.stop()

    async def events(self, row: Mapping[str, Any], deadline: float) -> AsyncGenerator[Any]:
        """What the model streams for a row of the chat contract.

        A request whose worker ends before anything was sent is asked again.

        Args:
            row: of the chat contract.
            deadline: on the monotonic clock.

        Raises:
            ApiError: 429 where too many wait, 503 where time is up or the worker ended, what the
                model says otherwise.
        """
        async with self.admission.place(deadline):
            for attempt in range(1, ATTEMPTS + 1):
                worker = await self._running(deadline)
                sent = False
                replies = worker.ask(row, deadline)
                opening: list[Any] = []
                try:
                    async for chunk in replies:
                        if not sent and _opens(chunk):
                            opening.append(chunk)
                            continue
                        sent = True
                        for held in opening:
                            yield held
                        opening.clear()
                        yield chunk
                    return
                except TimeoutError:
                    raise _late() from None
                except WorkerGoneError as error:
                    if sent or attempt == ATTEMPTS:
                        raise ApiError(
                            503,
                            f"the worker of {self.version.uri} ended while it answered"
                            f" ({error}); another one is started, ask again",
                            code="worker_ended",
                            retry_after=1,
                        ) from error
                finally:
                    await replies.aclose()

    async def _running(self, deadline: float) -> WorkerProcess:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._up.wait()
                while self.worker is None or self.worker.gone.is_set():
                    if self._closing:
                        raise TimeoutError
                    self._up.clear()  # before who replaces the worker has seen it
                    await self._up.wait()
        except TimeoutError:
            raise ApiError(
                503,
                f"{self.version.uri} has no worker just now ({self.trouble or 'it starts'})",
                code="unavailable",
                retry_after=5,
            ) from None
        return self.worker

    @property
    def _unfinished(self) -> int:
        return self.admission.active + self.admission.waiting + self._held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the worker while a response asks it several times, one after another."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def drain(self) -> None:
        """Wait for the answers on their way, as long as ``serve.drain_seconds`` allows, and end."""
        until = time.monotonic() + self._config.drain_seconds
        try:
            await asyncio.sleep(DRAIN_GRACE)
            while (left := self._unfinished) and time.monotonic() < until:
                await asyncio.sleep(DRAIN_LOOK)
            if left:
                log.warning(
                    "%s: %d answers were not whole after serve.drain_seconds=%g",
                    self.version.uri,
                    left,
                    self._config.drain_seconds,
                )
        finally:
            await self.close()

    async def close(self) -> None:
        """End the worker; answers on their way fail."""
        self._closing, self.trouble = True, "the server ends, or another version is served"
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        if self.worker is not None:
            await self.worker.stop()
            log.info("%s: the worker is ended", self.version.uri)
        self._up.set()  # whoever waits for another worker hears that there will be none


def _too_large(held: int, limit: int) -> str:
    return f"it held {held:,} bytes, and serve.memory_limit_bytes={limit:,}"


def _opens(chunk: Any) -> bool:
    """Whether a chunk says no more than that an answer begins, which comes before any token."""
    if not isinstance(chunk, dict) or not chunk.get("choices"):
        return False
    return all(
        choice.get("finish_reason") is None and not any(choice["delta"].get(key) for key in TEXTS)
        for choice in chunk["choices"]
    )


def _late() -> ApiError:
    return ApiError(
        503,
        "the answer was not whole within serve.request_timeout: ask for fewer tokens, or raise it",
        code="timeout",
    )
