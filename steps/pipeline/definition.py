"""What an entry point is: its body, and what its output depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steps.config.root import Config
from steps.pipeline.fingerprint import Fingerprint, fingerprint
from steps.pipeline.source import source_digest


@dataclass(frozen=True)
class StepRun:
    """What a body is given besides the config."""

    # the active MLflow run; of a step that makes none, the one that `mlflow run` made, or empty
    run_id: str
    # config key to URI, such as {"snapshot_uri": "runs:/…/snapshot.json"}
    inputs: Mapping[str, str]
    fingerprint: str
    overrides: tuple[str, ...]  # as composed, in Hydra's grammar


Body = Callable[[Config, StepRun], str]
Inputs = tuple[str, ...] | Callable[[Config], tuple[str, ...]]
Packages = tuple[str, ...] | Callable[[], tuple[str, ...]]


def never_stale(_config: Config, _uri: str) -> str | None:
    return None


def reads_nothing_else(_config: Config) -> Mapping[str, str]:
    return {}


def nothing_to_refresh(_config: Config, _uri: str) -> None:
    return None


@dataclass(frozen=True)
class Step:
    """One entry point.

    Args:
        body: takes the config and its run; returns the URI of what it made.
        reads: dotted config nodes that its output depends on.
        inputs: config keys that hold the URIs of its inputs, or a function of the config that names
            them.
        files: files and folders that it reads rather than imports.
        presentation: files and folders that only say how its output is shown to people; a change in
            them makes no other output.
        packages: distributions whose versions its output depends on, or a function that names them.
        stale: why an output of an earlier run with the same fingerprint cannot be taken instead of
            running again; None where it can.
        also_reads: digests of inputs that no config key names, such as the incumbent champion.
        refresh: brings up to date how an output is shown that is taken instead of running again.
        output_digest: digest of its output, given the URI; None where the digest of the bytes is
            meant.
        makes_run: False for a command that only reads: it is called with the config, without an
            MLflow run and without Hydra's output folder.
        keys: dotted config nodes and keys that ``--help`` shows, where they are others than
            ``reads`` and ``inputs``; ``onnx=`` is the choice of a file without its keys. A step
            with ``target`` among them works for the model that this names.
        says_output: False where the step that made the output has named it already.
    """

    body: Body
    name: str
    module: str
    reads: tuple[str, ...] = ()
    inputs: Inputs = ()
    files: tuple[str, ...] = ()
    presentation: tuple[str, ...] = ()
    packages: Packages = ()
    stale: Callable[[Config, str], str | None] = field(default=never_stale)
    also_reads: Callable[[Config], Mapping[str, str]] = field(default=reads_nothing_else)
    output_digest: Callable[[str], str] | None = None
    refresh: Callable[[Config, str], None] = field(default=nothing_to_refresh)
    makes_run: bool = True
    keys: tuple[str, ...] = ()
    says_output: bool = True

    def own_keys(self) -> tuple[str, ...]:
        """What ``--help`` shows."""
        inputs = () if callable(self.inputs) else self.inputs
        return self.keys or (*inputs, *self.reads)

    def needs(self, config: Config) -> tuple[str, ...]:
        """Config keys of the inputs that it needs under ``config``."""
        return self.inputs(config) if callable(self.inputs) else self.inputs

    def distributions(self) -> tuple[str, ...]:
        """Distributions whose versions count."""
        return self.packages() if callable(self.packages) else self.packages

    def fingerprint(self, config: Config, input_digests: Mapping[str, str]) -> Fingerprint:
        """Fingerprint of this step under ``config`` with inputs of these digests."""
        return fingerprint(
            config,
            reads=self.reads,
            inputs={**input_digests, **self.also_reads(config)},
            source=source_digest(self.module, self.files, self.presentation),
            packages=self.distributions(),
        )
