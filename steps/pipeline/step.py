"""``@step``: one decorator owns the command line, the config, the MLflow run and the logs, so that a body is only its work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steps.config.root import Config
from steps.pipeline.fingerprint import Fingerprint, fingerprint


@dataclass(frozen=True)
class StepRun:
    """What a body is given besides the config."""

    run_id: str  # the active MLflow run
    inputs: Mapping[str, str]  # config key to URI, such as {"snapshot_uri": "runs:/…/snapshot.json"}
    fingerprint: str
    overrides: tuple[str, ...]  # as composed, in Hydra's grammar


Body = Callable[[Config, StepRun], str]
Inputs = tuple[str, ...] | Callable[[Config], tuple[str, ...]]


def _never(_config: Config, _uri: str) -> str | None:
    return None


def _nothing(_config: Config) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Step:
    """One entry point: calling it runs it from the command line.

    Args:
        body: takes the config and its run; returns the URI of what it made.
        reads: dotted config nodes that its output depends on.
        inputs: config keys that hold the URIs of its inputs, or a function of the config that names them.
        files: files and folders that it reads rather than imports.
        packages: distributions whose versions its output depends on.
        stale: why an output of an earlier run with the same fingerprint cannot be taken instead of running again; None where it can.
        also_reads: digests of inputs that no config key names, such as the incumbent champion.
    """

    body: Body
    name: str
    module: str
    reads: tuple[str, ...] = ()
    inputs: Inputs = ()
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    stale: Callable[[Config, str], str | None] = field(default=_never)
    also_reads: Callable[[Config], Mapping[str, str]] = field(default=_nothing)

    def __call__(self) -> None:
        from steps.pipeline.launcher import launch

        launch(self)

    def needs(self, config: Config) -> tuple[str, ...]:
        """Config keys of the inputs that it needs under ``config``."""
        return self.inputs(config) if callable(self.inputs) else self.inputs

    def fingerprint(self, config: Config, input_digests: Mapping[str, str]) -> Fingerprint:
        """Fingerprint of this step under ``config`` with inputs of these digests."""
        return fingerprint(
            config,
            reads=self.reads,
            inputs={**input_digests, **self.also_reads(config)},
            module=self.module,
            files=self.files,
            packages=self.packages,
        )


def step(
    *,
    reads: tuple[str, ...] = (),
    inputs: Inputs = (),
    files: tuple[str, ...] = (),
    packages: tuple[str, ...] = (),
    stale: Callable[[Config, str], str | None] = _never,
    also_reads: Callable[[Config], Mapping[str, str]] = _nothing,
) -> Callable[[Body], Step]:
    """Make a function an entry point; the arguments are those of :class:`Step`."""

    def decorate(body: Body) -> Step:
        name = body.__name__.rstrip("_")  # as `mlflow run . -e import` has it
        return Step(body, name, f"steps.{body.__name__}", reads, inputs, files, packages, stale, also_reads)

    return decorate
