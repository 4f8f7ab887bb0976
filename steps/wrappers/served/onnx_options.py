"""A request's settings as onnxruntime-genai takes them, and its errors as a caller is told them."""

from collections import Counter
from typing import Any

from mlflow.exceptions import MlflowException

from .backend import Job, engine_error
from .grammars import fault_of_grammar, uncompilable
from .request import Request


def generator_params(
    og: Any, model: Any, job: Job, *, capacity: int, seed: int, vocabulary: int
) -> Any:
    """Search options of a Generator.

    Args:
        og: the onnxruntime_genai module.
        model: its Model.
        job: to be answered.
        capacity: tokens of its KV cache.
        seed: of the random stream.
        vocabulary: entries of the vocabulary.
    """
    request = job.request
    options: dict[str, Any] = {
        "max_length": capacity,
        "do_sample": not request.greedy,
        "repetition_penalty": request.repetition_penalty,
    }
    if request.min_tokens:
        options["min_length"] = min(len(job.ids) + request.min_tokens, capacity)
    if not request.greedy:
        options |= {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": min(request.top_k, vocabulary),
            "random_seed": seed,
        }
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(**options)
    if request.grammar is not None:
        parameters.set_guidance(request.grammar.kind, request.grammar.text)
    return parameters


def turn_options(og: Any, handle: Any, request: Request, vocabulary: int) -> Any:
    """Options of a turn on an Engine, which takes neither seed nor grammar."""
    turn = og.TurnOptions(handle)
    turn.set_max_generated_tokens(request.max_tokens)
    turn.set_min_generated_tokens(request.min_tokens)
    turn.set_repetition_penalty(request.repetition_penalty)
    turn.set_do_sample(not request.greedy)
    if not request.greedy:
        turn.set_temperature(request.temperature)
        turn.set_top_p(request.top_p)
        turn.set_top_k(min(request.top_k, vocabulary))
    return turn


def penalise(generator: Any, request: Request, counts: Counter[int]) -> None:
    """Take frequency and presence penalties from the scores of the next token."""
    logits = generator.get_logits().copy()  # (1, 1, vocabulary), float32
    logits[0, -1, list(counts)] -= request.penalties(counts)
    generator.set_logits(logits)


def rewindable(request: Request) -> bool:
    """Whether another answer may go on with the request's Generator: search options are fixed, so
    only plain greedy answers share one.
    """
    return (
        request.greedy
        and request.grammar is None
        and not request.penalised
        and request.repetition_penalty == 1
        and request.min_tokens == 0
    )


def generator_error(job: Job, error: Exception) -> MlflowException:
    """Build the error of an answer that a Generator did not give: a grammar that the engine does
    not take is the caller's fault.
    """
    grammar = job.request.grammar
    if grammar is not None and fault_of_grammar(error):
        return uncompilable(grammar, str(error))
    return engine_error(error)
