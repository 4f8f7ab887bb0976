"""The pyfunc model around an engine: rows in, completions out, from any thread."""

import math
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow.models.utils import _load_model_code_path
from mlflow.pyfunc.model import PythonModel

from .answer import Answer
from .backend import Backend, Job, Replies
from .call_form import ForcedCalls
from .conversation import Conversations
from .engine import Engine
from .exchange import Exchange, StreamedExchange, with_logprobs
from .grammar_matchers import GrammarMatchers
from .grammar_trial import GrammarTrial
from .invalid_request import behind_server, invalid_request
from .limits import Limits
from .logged_files import not_portable, read_checksums, require_own_files, verify
from .request import Defaults, Request
from .request_limits import deadline_of
from .request_rows import requests_of
from .scheduler import Scheduler
from .settings import Settings
from .template_kwargs import KWARGS, checked_template_kwargs
from .tokenizer import CheckpointTokenizer


class ServedModel(PythonModel):
    """Answers a ``prompt`` with a string and ``messages`` with a chat completion."""

    _skip_type_hint_validation = True  # MLflow's switch for models that check their rows themselves

    @property
    def scores(self) -> bool:
        """Whether the engine shows the scores of tokens, for ``logit_bias`` and ``logprobs``."""
        return True

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.engine: Engine | None = None
        self.trial: GrammarTrial | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the way to load it: its folder and settings; the process that unpickles it reads
        the files and starts an engine of its own.

        MLflow gives a model's code a module name that no other process knows (``code_model_…``), so
        the code file is named instead, and nothing of that module is in the state.

        Raises:
            MlflowException: the model's folder is gone.
        """
        state = {"folder": self.folder, "settings": asdict(self.settings) if self.folder else {}}
        if self.folder is not None and not self.folder.is_dir():
            raise not_portable(self.folder)
        if not type(self).__module__.startswith("code_model_"):
            return type(self), (), state
        code = Path(str(sys.modules[type(self).__module__].__file__))
        if not code.is_file():
            raise not_portable(code)
        return _load_model_code_path, (str(code), None), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        folder = state["folder"]
        if folder is None:
            return
        if not folder.is_dir():
            raise not_portable(folder)
        self.settings, self.folder = Settings(**state["settings"]), folder
        self._open(folder)

    def load_context(self, context: Any) -> None:
        """Check the files and start the engine.

        Raises:
            MlflowException: a damaged file, a bad model_config, a missing execution provider.
        """
        self.settings = Settings.read(context.model_config)
        self.folder = Path(
            next(path for name, path in context.artifacts.items() if name != "checksums")
        )
        checksums = context.artifacts.get("checksums")
        if checksums is not None:  # <root>/artifacts/checksums.json
            require_own_files(self.folder, Path(checksums).parent.parent)
            if self.settings.verify_checksums:
                verify(self.folder, read_checksums(Path(checksums)))
        self._open(self.folder)
        self.scheduler()

    def _open(self, folder: Path) -> None:
        self.conversations = Conversations.of_folder(folder)
        self.tokenizer = self.make_tokenizer(folder)
        self.limits = self.read_limits(folder)
        capabilities = self.conversations.capabilities
        self.defaults = Defaults(
            self.settings.max_new_tokens,
            self.settings.temperature,
            capabilities=capabilities,
            template_kwargs=checked_template_kwargs(
                self.settings.chat_template_kwargs, None, capabilities, f"model_config.{KWARGS}"
            ),
            scores=self.scores,
            vocabulary=self.limits.vocabulary or self.tokenizer.vocabulary,
            calls=ForcedCalls(self.conversations, self.tokenizer.special),
        )
        vocabulary = self.tokenizer.to_json, self.limits.eos_token_ids
        self.matchers, self.trial = GrammarMatchers(*vocabulary), GrammarTrial(*vocabulary)
        self.engine = Engine(self.make_backend, self.settings)

    def scheduler(self) -> Scheduler:
        """The scheduler of the running engine, which is started if need be."""
        assert self.engine is not None  # load_context makes it
        return self.engine.scheduler()

    def close(self) -> None:
        """Stop the engine and free it, and the process that tries grammars; the next request would
        start them anew. Dropping the model or leaving the process does the same.
        """
        if self.engine is not None:
            self.engine.close()
        if self.trial is not None:
            self.trial.close()

    # --- what a variant brings

    @abstractmethod
    def make_tokenizer(self, folder: Path) -> CheckpointTokenizer:
        """Read the folder's tokenizer."""

    @abstractmethod
    def make_backend(self) -> Backend:
        """Load the weights."""

    @abstractmethod
    def read_limits(self, folder: Path) -> Limits:
        """What ends an answer, and how long a text may be."""

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
            MlflowException: a row breaks the contract; no row was answered then.
        """
        deadline = self._deadline()
        scheduler = self.scheduler()
        with scheduler.arriving():
            requests = requests_of(model_input, params, self.defaults)
            if any(request.stream for request in requests):
                raise invalid_request("stream", True, "false in predict", "call predict_stream")
            self._require_grammars(requests)
            exchanges = [self.exchange(request) for request in requests]
            out, jobs, spans = Replies(), list[Job](), list[slice]()
            for exchange in exchanges:
                begin = len(jobs)
                jobs += exchange.jobs(
                    self.tokenizer, self.limits, out, deadline=deadline, first=begin
                )
                spans.append(slice(begin, len(jobs)))
            # a large frame is queued piece by piece, so that others get their turn between its rows
            window = min(2 * self.settings.max_batch_size, self.settings.max_queue)
            if not behind_server():  # a batch job waits as long as its frame takes
                for job in jobs[window:]:
                    job.deadline = math.inf  # their time runs from when they are queued
            scheduler.submit(jobs[:window])
        answers = self._answers(scheduler, jobs, out, window)
        results: list[Any] = []
        for exchange, span in zip(exchanges, spans, strict=True):
            own = answers[span]
            own = own * exchange.request.n if len(own) == 1 else own
            results.append(exchange.result(self.settings.name, own))
        return results

    def _answers(
        self, scheduler: Scheduler, jobs: list[Job], out: Replies, window: int
    ) -> list[Answer]:
        """Wait for all answers; jobs after the first ``window`` are queued as places free up."""
        answers: dict[int, Answer] = {}
        queued = min(window, len(jobs))
        try:
            while len(answers) < len(jobs):
                index, _, value = scheduler.next_reply(out)
                answers[index] = with_logprobs(value, jobs[index], self.tokenizer.shown)
                free = len(answers) + window - queued
                if queued < len(jobs) and free >= min(self.settings.max_batch_size, window):
                    scheduler.submit(jobs[queued : queued + free], patiently=True)
                    queued = min(queued + free, len(jobs))
        except BaseException:
            for job in jobs:
                job.cancelled.set()
            raise
        return [answers[index] for index in range(len(jobs))]

    def predict_stream(
        self,
        context: Any,  # noqa: ARG002
        model_input: Any,
        params: dict[str, Any] | None = None,
    ) -> Iterator[Any]:
        """Answer one row as it is generated: strings for a prompt, chunks for messages.

        Leaving the iterator cancels the answer.
        """
        return self.stream_until(threading.Event(), model_input, params)

    def stream_until(
        self, left: threading.Event, model_input: Any, params: dict[str, Any] | None = None
    ) -> Iterator[Any]:
        """As ``predict_stream``; setting ``left`` cancels the answer from any thread, also while
        its prompt is computed and the iterator waits.
        """
        deadline = self._deadline()
        requests = requests_of(model_input, params, self.defaults)
        if len(requests) != 1:
            raise invalid_request("rows", len(requests), "one row for predict_stream")
        self._require_grammars(requests)
        return self._stream(requests[0], deadline, left)

    def _stream(self, request: Request, deadline: float, left: threading.Event) -> Iterator[Any]:
        scheduler, out = self.scheduler(), Replies()
        exchange = self.exchange(request)
        jobs = exchange.jobs(self.tokenizer, self.limits, out, deadline=deadline, streams=True)
        if request.prompt is not None and len(jobs) > 1:
            raise invalid_request("n", request.n, "1 where a prompt is streamed")
        if len(jobs) > self.settings.max_queue:
            raise invalid_request(
                "n",
                request.n,
                f"at most {self.settings.max_queue}, as max_queue in the model_config says",
            )
        for job in jobs:
            job.cancelled = left
        scheduler.submit(jobs)
        shown = StreamedExchange(exchange, self.settings.name, jobs, self.tokenizer.shown)
        answers: dict[int, Answer] = {}
        try:
            yield from shown.begin()
            while len(answers) < len(jobs):
                index, kind, value = scheduler.next_reply(out)
                if kind == "answer":
                    answers[index] = value
                    yield from shown.end(index, value)
                else:
                    yield from shown.take(index, value)
            yield from shown.close([answers[index] for index in range(len(jobs))])
        finally:
            left.set()

    def _deadline(self) -> float:
        """When the time of a request that arrives now is up."""
        return deadline_of(time.monotonic(), self.settings.request_timeout)

    def _require_grammars(self, requests: Sequence[Request]) -> None:
        """Try and compile grammars, here and not in the scheduler's thread."""
        assert self.trial is not None  # load_context makes it
        for grammar in {request.grammar for request in requests}:
            if grammar is not None and not grammar.cheap:
                self.trial.require(grammar)
            if grammar is not None:
                self.matchers.compiled(grammar)

    def exchange(self, request: Request) -> Exchange:
        """Turn a request into prompt token ids, and what its answer is read by; structure that
        messages spell stays text unless the switch is off.
        """
        return Exchange.begin(
            request,
            self.conversations,
            self.tokenizer,
            neutralise=self.settings.neutralise_special_tokens,
            longest=self.limits.context_length * self.tokenizer.longest_token,
        )
