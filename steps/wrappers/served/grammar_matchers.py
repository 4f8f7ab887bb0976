"""Holds answers to their grammars with llguidance: a grammar is compiled once, each answer gets a
copy.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException

from .backend import Job, engine_error
from .fork_safety import ForkSafe
from .grammars import Grammar, uncompilable
from .sampling import Scores

# grammars that stay compiled, those that were asked for last: 0.3 MB of a usual one, 12 MB of the
# largest that a trial lets through; compiling one anew takes milliseconds, 0.25 s at most
COMPILED = 32


class GrammarLimitError(RuntimeError):
    """A grammar that cannot go on: it is too large for the library at one of its tokens."""


def new_matcher(tokenizer: Any, kind: str, text: str) -> Any:
    """Compile a grammar; a matcher says itself whether it is in error.

    The process that tries grammars runs the source of this function: what it needs is imported
    here.

    Args:
        tokenizer: a ``llguidance.LLTokenizer``.
        kind: of a ``Grammar``.
        text: the same.
    """
    from llguidance import LLMatcher, LLParserLimits

    read: Any = {
        "json_schema": LLMatcher.grammar_from_json_schema,
        "regex": LLMatcher.grammar_from_regex,
        "lark_grammar": LLMatcher.grammar_from_lark,
    }[kind]
    limits = LLParserLimits(verbose_errors=False)
    return LLMatcher(tokenizer, read(text), log_level=0, limits=limits)


class GrammarMask:
    """What a grammar allows at the next token of one answer; a ``TokenMask``.

    Args:
        matcher: the answer's own.
    """

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def apply(self, scores: Scores) -> None:
        """Set the scores of tokens that are not allowed to minus infinity; ids past the tokenizer's
        are not.

        Raises:
            GrammarLimitError: the grammar is too large for the library.
        """
        allowed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._require_no_error()
        # bits that are missing are 0
        scores[np.unpackbits(allowed, count=len(scores), bitorder="little") == 0] = -np.inf

    def accept(self, token: int) -> None:
        """Take the token that was chosen.

        Raises:
            GrammarLimitError: it is not allowed, or the grammar is too large for the library.
        """
        self._matcher.consume_token(token)
        self._require_no_error()

    def _require_no_error(self) -> None:
        if self._matcher.is_error():  # its mask would allow the end of the answer
            raise GrammarLimitError(f"grammar: {self._matcher.get_error()}")


class GrammarMatchers(ForkSafe):
    """Compiles grammars for one tokenizer, for any number of threads, and remembers them.

    Args:
        tokenizer_json: gives the content of tokenizer.json, when the first grammar is compiled.
        eos: ids of the tokens that end an answer.
    """

    def __init__(self, tokenizer_json: Callable[[], str], eos: Sequence[int]) -> None:
        self._tokenizer_json, self._eos = tokenizer_json, list(eos)
        super().__init__()

    def renew_lock(self) -> None:
        """Take a lock that no thread holds, with nothing compiled: a thread of the parent may be
        inside of what it compiled.
        """
        super().renew_lock()
        self._tokenizer: Any = None
        self._compiled: OrderedDict[Grammar, Any] = OrderedDict()

    def compiled(self, grammar: Grammar) -> Any:
        """Compile a grammar, up to the mask of its first token, or find it compiled.

        Returns:
            A matcher that must be copied and never be changed.

        Raises:
            MlflowException: saying what is wrong with the grammar, with status 400.
        """
        with self.lock:
            if grammar in self._compiled:
                self._compiled.move_to_end(grammar)
                return self._compiled[grammar]
            if self._tokenizer is None:
                from llguidance import LLTokenizer

                try:
                    self._tokenizer = LLTokenizer(self._tokenizer_json(), eos_token=self._eos)
                except ValueError as error:
                    problem = f"llguidance cannot read this model's tokenizer: {error}"
                    raise uncompilable(grammar, problem) from error
            tokenizer = self._tokenizer
        try:
            matcher = new_matcher(tokenizer, grammar.kind, grammar.text)
        except ValueError as error:
            raise uncompilable(grammar, str(error)) from error
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise uncompilable(grammar, matcher.get_error())
        with self.lock:
            self._compiled[grammar] = matcher
            while len(self._compiled) > COMPILED:
                self._compiled.popitem(last=False)
        return matcher

    def mask(self, grammar: Grammar) -> GrammarMask:
        """What one answer is held to its grammar by.

        Raises:
            MlflowException: as ``compiled``.
        """
        return GrammarMask(self.compiled(grammar).deep_copy())


def answer_error(job: Job, error: Exception) -> MlflowException:
    """Build the error of an answer that cannot go on: what stops a grammar is the caller's fault,
    anything else the engine's.
    """
    grammar = job.request.grammar
    if grammar is not None and isinstance(error, GrammarLimitError):
        return uncompilable(grammar, str(error))
    return error if isinstance(error, MlflowException) else engine_error(error)
