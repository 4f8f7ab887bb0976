"""Run the whole chain: from a model's name to promoted versions in the Model Registry.

Reads: the whole config; any input URI that is given is taken instead of running the step that makes
it.
Writes: one child run a step, two logged models, a report, registered versions and their aliases.

    mlflow run . --env-manager local -P model=smollm2_135m
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(
    says_output=False,
    keys=(
        *("onnx=", "evaluate=", "promotion=", "reuse", "dry_run", "signing_key", "experiment"),
        *("snapshot_uri", "transformers_uri", "onnx_uri", "report_uri", "store", "notifications"),
    ),
)
def main(config: Config, run: StepRun) -> str:
    from steps.config.model import Source
    from steps.pipeline.chain import Chain
    from steps.registry.summary import say_where_to_look
    from steps.snapshots import folder, provenance

    if config.model.source is Source.folder and not config.snapshot_uri:
        folder.require(config.model)  # before anything is started
    chain = Chain(config, run.overrides, lambda uri: provenance.read_snapshot(uri).size)
    output = chain.run()
    say_where_to_look(config, chain.uris["report_uri"])
    return output


if __name__ == "__main__":
    main()
