"""The pyfunc model around a core: rows in, completions out, for any number of threads and after any
fork.
"""

import json
import os
import queue
import secrets
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

from .answer import Answer
from .contract import Defaults, Request, requests_of
from .conversation import Conversations
from .exchange import Exchange, StreamedExchange
from .fitting import deadline_of_caller, fitted, require_embedded
from .grammars import Grammar
from .invalid_request import invalid_request
from .limits import Limits
from .scheduler import Core, Driver, Job
from .settings import Settings, verify
from .template_kwargs import KWARGS, checked_template_kwargs
from .tokenizer import CheckpointTokenizer

MODELS: "weakref.WeakSet[ServedModel]" = weakref.WeakSet()


def _renew_locks() -> None:
    """Give a forked child locks that no thread of its parent holds."""
    for model in MODELS:
        model.renew_locks()


os.register_at_fork(after_in_child=_renew_locks)


class ServedModel(PythonModel):
    """Answers rows of both contracts: ``prompt`` with a string, ``messages`` with a chat
    completion.
    """

    _skip_type_hint_validation = True  # MLflow's switch for models that check their rows themselves

    grammars = True  # whether response_format can be honoured

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._driver: Driver | None = None
        # a parent process's: its threads are gone, its memory must not be freed here
        self._abandoned: list[Driver] = []
        self._folder: Path | None = None
        MODELS.add(self)

    def __getstate__(self) -> dict[str, Any]:
        # of this process; made anew where it is unpickled
        own = ("_lock", "_driver", "_abandoned", "_tokenizer", "_conversations", "_trial")
        return {key: value for key, value in self.__dict__.items() if key not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.__dict__.update(state)
        if self._folder is not None:
            self._open()

    def load_context(self, context: Any) -> None:
        """Check the files and start the engine.

        Raises:
            MlflowException: a damaged file, a bad model_config, a missing execution provider.
        """
        self.settings = Settings.read(context.model_config)
        self._folder = Path(
            next(path for name, path in context.artifacts.items() if name != "checksums")
        )
        checksums = context.artifacts.get("checksums")
        if checksums is not None and self.settings.verify_checksums:
            verify(self._folder, json.loads(Path(checksums).read_text("utf-8")))
        self._open()
        self._engine()

    @property
    def core(self) -> Core:
        """The engine's core, to look at."""
        return self._engine().core

    def close(self) -> None:
        """Stop the engine and free it; the next request would start it anew. Dropping the model or
        leaving the process does the same.
        """
        if self._driver is not None:
            self._driver.close()

    def _open(self) -> None:
        assert self._folder is not None
        self._conversations = Conversations.of_folder(self._folder)
        self._tokenizer = self.make_tokenizer(self._folder)
        self.defaults = Defaults(
            self.settings.max_new_tokens,
            self.settings.temperature,
            self.grammars,
            self._conversations.capabilities,
            checked_template_kwargs(
                self.settings.chat_template_kwargs,
                None,
                self._conversations.capabilities,
                f"model_config.{KWARGS}",
            ),
        )
        self.limits = self.read_limits(self._folder)

    @abstractmethod
    def make_tokenizer(self, folder: Path) -> CheckpointTokenizer:
        """Read the folder's tokenizer."""

    @abstractmethod
    def make_core(self, folder: Path) -> Core:
        """Load the weights."""

    @abstractmethod
    def read_limits(self, folder: Path) -> Limits:
        """What ends an answer, and how long a text may be."""

    def _engine(self) -> Driver:
        driver = self._driver
        if driver is not None and driver.alive:
            return driver
        with self._lock:
            if self._driver is not None and self._driver.alive:
                return self._driver
            if self._driver is not None and not self._driver.ours:
                self._abandoned.append(self._driver)
            folder = self._folder
            assert folder is not None
            make = self._core_maker(folder)
            self._driver = Driver(make, self.settings.max_queue, self.settings.request_timeout)
            weakref.finalize(self, self._driver.close)  # also runs when the interpreter exits
            return self._driver

    def renew_locks(self) -> None:
        """Take new locks; called in a forked child, where the threads that may hold the old ones do
        not exist.
        """
        self._lock = threading.Lock()
        self.renew_trial_lock()

    def renew_trial_lock(self) -> None:
        """Take another lock for grammars that are tried; a variant without grammars has none."""

    def require_grammar(self, grammar: Grammar) -> None:
        """Refuse a grammar that cannot be compiled while others wait; a variant without grammars
        sees none.

        Raises:
            MlflowException: saying what is wrong with it.
        """

    def _core_maker(self, folder: Path) -> Callable[[], Core]:
        owner = weakref.ref(self)

        def make() -> Core:
            model = owner()
            if model is None:
                raise RuntimeError("the model was dropped while its engine was being started")
            return model.make_core(folder)

        return make

    # --- answering

    def predict(
        self,
        context: Any,  # noqa: ARG002
        model_input: Any,
        params: dict[str, Any] | None = None,
    ) -> list[Any]:
        """Answer every row, in order.

        Args:
            context: unused.
            model_input: a frame, a mapping, a list of mappings, or prompts.
            params: settings for the rows that do not have their own.

        Raises:
            MlflowException: a row breaks the contract; nothing was answered then.
        """
        driver = self._engine()
        with driver.arriving():
            requests = requests_of(model_input, params, self.defaults)
            if any(request.stream for request in requests):
                raise invalid_request("stream", True, "false in predict", "call predict_stream")
            out: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
            self._require_grammars(requests)
            exchanges = [self._exchange(request) for request in requests]
            jobs, owners = self._jobs(exchanges, out, streams=False)
            # a large frame is queued piece by piece, so that others get their turn between its rows
            window = min(2 * self.settings.max_batch_size, self.settings.max_queue)
            driver.submit(jobs[:window])
        answers: dict[int, Answer] = {}
        queued = len(jobs[:window])
        try:
            while len(answers) < len(jobs):
                index, _, value = self._next(out, driver)
                answers[index] = value
                ready = len(answers) + window - queued
                if queued < len(jobs) and ready >= min(self.settings.max_batch_size, window):
                    driver.submit(jobs[queued : queued + ready], patiently=True)
                    queued += len(jobs[queued : queued + ready])
        except BaseException:
            for job in jobs:
                job.cancelled.set()
            raise
        results: list[Any] = []
        grouped: list[list[Answer]] = [[] for _ in requests]
        for index, owner in enumerate(owners):
            grouped[owner].append(answers[index])
        for number, exchange in enumerate(exchanges):
            mine = (
                grouped[number] * exchange.request.n
                if len(grouped[number]) == 1
                else grouped[number]
            )
            results.append(exchange.result(self.settings.name, mine))
        return results

    def predict_stream(
        self,
        context: Any,  # noqa: ARG002
        model_input: Any,
        params: dict[str, Any] | None = None,
    ) -> Iterator[Any]:
        """Answer one row as it is generated: strings for a prompt, chunks for messages.

        Leaving the iterator cancels the answer.
        """
        requests = requests_of(model_input, params, self.defaults)
        if len(requests) != 1:
            raise invalid_request("rows", len(requests), "one row for predict_stream")
        self._require_grammars(requests)
        return self._stream(requests[0])

    def _stream(self, request: Request) -> Iterator[Any]:
        driver = self._engine()
        out: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        exchange = self._exchange(request)
        jobs, _ = self._jobs([exchange], out, streams=True, spread=True)
        if request.prompt is not None and len(jobs) > 1:
            raise invalid_request("n", request.n, "1 where a prompt is streamed")
        if len(jobs) > self.settings.max_queue:
            raise invalid_request(
                "n",
                request.n,
                f"at most {self.settings.max_queue}, as max_queue in the model_config says",
            )
        driver.submit(jobs)
        shown = StreamedExchange(exchange, self.settings.name, len(jobs))
        answers: dict[int, Answer] = {}
        try:
            yield from shown.begin()
            while len(answers) < len(jobs):
                index, kind, value = self._next(out, driver)
                if kind == "answer":
                    answers[index] = value
                    yield from shown.end(index, value)
                else:
                    yield from shown.take(index, value)
            yield from shown.close([answers[index] for index in range(len(jobs))])
        finally:
            for job in jobs:
                job.cancelled.set()

    def _next(
        self, out: "queue.SimpleQueue[tuple[int, str, Any]]", driver: Driver
    ) -> tuple[int, str, Any]:
        while True:
            # looked at before the queue, so that an empty one is empty for good
            alive = driver.answering
            try:
                index, kind, value = out.get(timeout=5 if alive else 0)
            except queue.Empty:
                if alive:
                    continue
                raise MlflowException("the engine is gone; load the model again") from None
            if kind == "error":
                raise value
            return index, kind, value

    def _require_grammars(self, requests: Sequence[Request]) -> None:
        for grammar in {
            request.grammar
            for request in requests
            if request.grammar is not None and not request.grammar.cheap
        }:
            self.require_grammar(grammar)

    def _exchange(self, request: Request) -> Exchange:
        longest = self.limits.context_length * self._tokenizer.longest_token
        neutralise = self.settings.neutralise_special_tokens
        return Exchange.begin(
            request, self._conversations, self._tokenizer, neutralise=neutralise, longest=longest
        )

    def _jobs(
        self,
        exchanges: list[Exchange],
        out: "queue.SimpleQueue[tuple[int, str, Any]]",
        *,
        streams: bool,
        spread: bool = False,
    ) -> tuple[list[Job], list[int]]:
        jobs: list[Job] = []
        owners: list[int] = []
        deadline = deadline_of_caller()
        for number, exchange in enumerate(exchanges):
            request, ids = exchange.request, exchange.ids
            require_embedded(ids, request, self.limits)
            fitting = fitted(request, len(ids), self.limits)
            first_seed = request.seed if request.seed is not None else secrets.randbelow(2**31 - 64)
            # greedy choices are alike: one is computed
            for choice in range(1 if request.greedy and not spread else request.n):
                text = exchange.text(self._tokenizer)
                seed = (first_seed + choice) % 2**31
                jobs.append(
                    Job(ids, fitting, seed, text, out, deadline, index=len(jobs), streams=streams)
                )
                owners.append(number)
        return jobs, owners

    def encode(self, request: Request) -> list[int]:
        """Turn a request into prompt token ids; structure that messages spell stays text unless the
        switch is off.
        """
        return self._exchange(request).ids
