"""Hold a served version's live figures against its evidence: times, errors, refusals, formats, and
its own answers to recorded prompts.

Reads: ``target`` (``models:/<name>@<alias>`` or ``models:/<name>/<version>``; without one, the
champion of the config's model), the traces that `serve` wrote in the last ``monitor.period_hours``,
the version's report, a running server where ``monitor.endpoint`` names one; the nodes ``monitor``
and ``promotion``, ``serve.trace_experiment``, ``report_uri``, ``dry_run``.
Writes: ``monitor.json``, ``monitor.md`` and metrics on its run and on the logged model; the tags
``slm.monitor…`` of a version whose figures left their bands or came back; with
``monitor.rollback=true`` what ``rollback`` writes.

    mlflow run . -e monitor --env-manager local -P target=models:/smollm2-135m-instruct@champion
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(keys=("target", "report_uri", "dry_run", "serve.trace_experiment", "monitor"))
def monitor(config: Config, run: StepRun) -> str:
    from steps.monitoring import table
    from steps.monitoring.look import look
    from steps.monitoring.result import ARTIFACT
    from steps.registry.client import RegistryClient

    found = look(config, RegistryClient(config.promotion.retry_seconds))
    print(table.text(found), flush=True)
    return f"runs:/{run.run_id}/{ARTIFACT}"


if __name__ == "__main__":
    monitor()
