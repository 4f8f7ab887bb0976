"""From the command line to a body: translate the words, compose and check the config, open the run,
call the body.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from steps.config.root import CONF, Config, with_inputs
from steps.core import visible
from steps.core.errors import ConfigError, StepError, Terminated
from steps.core.parent import end_with_parent
from steps.core.redaction import redact
from steps.pipeline.arguments import Arguments, translate
from steps.pipeline.compose import compose_config, compose_jobs, composed, typed
from steps.pipeline.config_files import local_keys
from steps.pipeline.definition import Step, StepRun

log = logging.getLogger(__name__)

BAD_CONFIG = 2  # exit code
FAILED = 1  # exit code
# seconds until a SIGTERM that came at a moment when nothing can be raised is raised again
AGAIN = 0.05


def launch(step: Step) -> None:
    """Run ``step`` with the words of the command line; ends the process with 2 on a bad config and
    1 on a failure.
    """
    _quiet()
    try:
        arguments = translate(sys.argv[1:])
        if not (step.makes_run or arguments.inspecting or not arguments.flags):
            raise ConfigError(
                "overrides",
                " ".join(arguments.flags),
                f"key=value; {step.name} runs once and makes no run of its own",
            )
        if arguments.helping:
            _help(step, arguments)
        jobs = _checked(arguments)
    except ConfigError as error:
        _refuse(step, error)
    if not (step.makes_run or arguments.inspecting):
        with _errors_in_one_line(step):
            _call(step, jobs[0])
        return
    heed_sigterm()
    end_with_parent()
    sys.argv = [sys.argv[0], *arguments.for_hydra(), f"hydra.job.name={step.name}"]
    if not arguments.inspecting:
        with _errors_in_one_line(step):
            _require_output_folder(arguments)
    try:
        if arguments.multirun and not arguments.inspecting:
            _multirun(step, arguments, jobs[0])
        else:
            _hydra(step)
    except Terminated:
        raise SystemExit(128 + signal.SIGTERM) from None


def _call(step: Step, config: Config) -> None:
    """Call a step that makes no run of its own."""
    run_id = os.environ.get("MLFLOW_RUN_ID", "")
    if run_id:
        from steps.pipeline.run import subject, write_name

        write_name(run_id, f"{step.name} {subject(step, config)}")
    step.body(config, StepRun(run_id, {}, "", ()))


def _help(step: Step, arguments: Arguments) -> NoReturn:
    from steps.pipeline import help as help_page

    print(help_page.text(step, composed(arguments.overrides)))
    raise SystemExit(0)


def _refuse(step: Step, error: ConfigError) -> NoReturn:
    """End on a bad config; `mlflow run` has made a run by then, which is told why."""
    if os.environ.get("MLFLOW_RUN_ID"):
        from steps.pipeline.run import name_refused

        name_refused(step.name, error)
    _end(step, error, BAD_CONFIG)


def _require_output_folder(arguments: Arguments) -> None:
    """Refuse a folder in which Hydra cannot write its log.

    Raises:
        StepError: with the folder and the cure.
    """
    if any(word.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for word in arguments.overrides):
        return
    folder = Path("outputs") if Path("outputs").exists() else Path.cwd()
    if not os.access(folder, os.W_OK):
        key = "hydra.sweep.dir" if arguments.multirun else "hydra.run.dir"
        raise StepError(
            f"{folder.absolute()} cannot be written, and Hydra keeps its log there; pass"
            f" {key}=<a folder of yours>"
        )


def _checked(arguments: Arguments) -> list[Config]:
    """The config of each job; none where the words only ask to see something.

    Raises:
        ConfigError: of the first override at fault.
    """
    if arguments.multirun:
        return compose_jobs(arguments.overrides)
    if not arguments.inspecting:
        return [compose_config(arguments.overrides)]
    composed(arguments.overrides)
    return []


@contextmanager
def _errors_in_one_line(step: Step) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        _end(step, error, BAD_CONFIG)
    except StepError as error:
        _end(step, error, FAILED)
    except Terminated:
        raise
    except KeyboardInterrupt:
        _end(step, StepError("interrupted"), 128 + signal.SIGINT)


def _hydra(step: Step) -> None:
    def task(cfg: DictConfig) -> None:
        with _errors_in_one_line(step):
            run_step(step, cfg, tuple(HydraConfig.get().overrides.task))

    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()


def _multirun(step: Step, arguments: Arguments, first: Config) -> None:
    """Hydra's jobs, each a run nested under one parent."""
    from steps.pipeline.run import opened

    name = f"{step.name} (multirun)"
    try:
        with opened(name, first.experiment) as run:
            run.record_origin(step, arguments.overrides, flags=arguments.flags)
            run.tag("mlflow.runName", name)
            _hydra(step)
    except StepError as error:
        _end(step, error, FAILED)


def run_step(step: Step, cfg: DictConfig, overrides: tuple[str, ...]) -> str:
    """Open the run of one job and call the body.

    Args:
        step: what to run.
        cfg: as Hydra composed it.
        overrides: that it was composed from, in Hydra's grammar.

    Returns:
        What the body made.
    """
    from steps.pipeline.artifact_lookup import resolve_inputs
    from steps.pipeline.run import opened

    config = typed(cfg)
    visible.keep(config.signing_key, config.notifications.secret_file)
    with opened(step.name, config.experiment) as run:
        if not run.nested and (keys := local_keys()):  # the chain's steps need not repeat it
            log.info("conf/local/default.yaml sets %s", ", ".join(keys))
        run.record(step, config, cfg, overrides)
        inputs = resolve_inputs(step, config, overrides)
        config = with_inputs(config, inputs)
        output = step.body(config, run.describe(step, config, inputs, overrides))
        run.finish(step, output)
    return output


def _quiet() -> None:
    """Silence what libraries print at every start."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is first imported
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # "generated new fontManager", when a machine draws its first picture
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)


def heed_sigterm() -> None:
    """Turn SIGTERM into ``Terminated`` in the main thread, again where Python had to ignore it.

    An exception that a signal's handler raises within a finaliser or a lock's release is printed as
    "ignored" and lost.
    """
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGALRM, _terminate)
    before = sys.unraisablehook

    def ignored(unraisable: "sys.UnraisableHookArgs") -> None:
        if issubclass(unraisable.exc_type, Terminated):
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        else:
            before(unraisable)

    sys.unraisablehook = ignored


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    # a second one must not cut short how children and runs are ended
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _end(step: Step, error: Exception, code: int) -> NoReturn:
    print(f"{step.name}: error: {redact(str(error))}", file=sys.stderr, flush=True)
    raise SystemExit(code)
