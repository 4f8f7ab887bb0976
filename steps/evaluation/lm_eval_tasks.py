"""Tasks of EleutherAI's lm-eval on local files, as an option for who has them: the candidate
answers as it answers everybody.

Generative tasks only (``output_type: generate_until``): a served chat model gives text, not
log-likelihoods.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, Protocol

import yaml

from steps.core.errors import ConfigError

DEFAULT_TOKENS = 256  # where a task does not say how long an answer may be


class Answering(Protocol):
    """What the adapter needs of a candidate's process."""

    def ask(self, command: str, **arguments: Any) -> Any: ...


def check(tasks: Sequence[str], path: str | None) -> None:
    """Say before anything runs whether the tasks can be run.

    Raises:
        ConfigError: lm-eval is not installed, there is no such folder or task, a file is not YAML,
            or a task asks for log-likelihoods.
    """
    if not tasks:
        return
    if find_spec("lm_eval") is None:
        raise ConfigError(
            "evaluate.lm_eval_tasks",
            list(tasks),
            "the package lm-eval, which is not installed",
            "pip install lm-eval",
        )
    if path is None or not Path(path).expanduser().is_dir():
        raise ConfigError("evaluate.lm_eval_path", path, "a folder with the tasks' YAML files")
    known = _declared(Path(path).expanduser())
    for task in tasks:
        if task not in known:
            raise ConfigError(
                "evaluate.lm_eval_tasks",
                task,
                f"a task that a YAML file in {path} names"
                f" ({', '.join(sorted(known)) or 'there is none'})",
            )
        if known[task] not in (None, "generate_until"):
            raise ConfigError(
                "evaluate.lm_eval_tasks",
                task,
                f"a task with output_type generate_until, not {known[task]}; chat gives no"
                " log-likelihoods",
            )


def _declared(folder: Path) -> dict[str, str | None]:
    """Tasks and groups that the folder's YAML files name, with their output type where they say
    it.
    """

    class Loader(yaml.SafeLoader):
        """Reads over lm-eval's own tags, such as ``!function``."""

    Loader.add_multi_constructor("!", lambda *_: None)
    tasks: dict[str, str | None] = {}
    for file in sorted(folder.rglob("*.yaml")):
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), Loader)  # a SafeLoader
        except yaml.YAMLError as error:
            raise ConfigError(
                "evaluate.lm_eval_path", str(file), f"valid YAML ({error})"
            ) from error
        if not isinstance(content, dict):
            continue
        for key in ("task", "group"):
            if isinstance(content.get(key), str):
                tasks[content[key]] = content.get("output_type")
    return tasks


def run(
    process: Answering, tasks: Sequence[str], path: str, seed: int, limit: int | None = None
) -> dict[str, float]:
    """Run tasks on one candidate.

    Args:
        process: a loaded candidate.
        tasks: names that the YAML files in ``path`` give.
        seed: for few-shot examples.
        limit: documents a task; None takes all.

    Returns:
        ``lm_eval/<task>/<metric>`` to its value.

    Raises:
        ConfigError: a task asks for log-likelihoods.
        CandidateFailedError: the candidate's process is gone.
    """
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Served(LM):  # type: ignore[misc]
        """The candidate as lm-eval sees a model."""

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
            return [_generate(process, *request.args) for request in requests]

        def loglikelihood(self, requests: Sequence[Any]) -> NoReturn:  # noqa: ARG002
            raise ConfigError(
                "evaluate.lm_eval_tasks",
                list(tasks),
                "tasks with output_type generate_until; chat gives no log-likelihoods",
            )

        loglikelihood_rolling = loglikelihood

    evaluated = lm_eval.simple_evaluate(
        model=Served(),
        tasks=list(tasks),
        task_manager=TaskManager(include_path=str(Path(path).expanduser()), include_defaults=False),
        limit=limit,
        bootstrap_iters=0,
        log_samples=False,
        random_seed=seed,
        fewshot_random_seed=seed,
    )
    values: dict[str, float] = {}
    for task, metrics in evaluated["results"].items():
        for name, value in metrics.items():
            # "exact_match,none": the metric, and the filter that it was taken behind
            plain = name.partition(",")[0]
            if (
                isinstance(value, int | float)
                and not plain.endswith("_stderr")
                and plain not in ("alias", "sample_len")
            ):
                values[f"lm_eval/{_name(task)}/{_name(plain)}"] = float(value)
    return values


def _generate(process: Answering, context: str, settings: dict[str, Any]) -> str:
    """One greedy answer, cut at the task's stop words."""
    limit = int(settings.get("max_gen_toks") or settings.get("max_tokens") or DEFAULT_TOKENS)
    text = str(
        process.ask("answer", messages=[{"role": "user", "content": context}], max_tokens=limit)[
            "text"
        ]
    )
    until = settings.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop)[0] if stop else text
    return text


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", text.lower())
