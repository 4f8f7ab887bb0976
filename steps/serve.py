"""Serve registered models by OpenAI's API, and follow their aliases: move one, and the next request
is answered by the version that it names now.

Reads: the aliases and versions of ``target`` (``models:/<name>`` or ``models:/<name>@<alias>``), of
``serve.models``, or of the config's model; the node ``serve``.
Writes: the versions' files and what was served last, below the store's folder ``serving``; the tag
``slm.serving`` of a version that cannot be served.

    mlflow run . -e serve --env-manager local -P serve.port=8000
"""

import logging

from steps.config.root import Config
from steps.core.errors import Terminated
from steps.pipeline.step import StepRun, step

log = logging.getLogger(__name__)


@step(makes_run=False, keys=("target", "serve"))
def serve(config: Config, run: StepRun) -> str:  # noqa: ARG001 - a server makes no run
    from steps.pipeline.launcher import heed_sigterm

    # the first process of a container has no default handler: a SIGTERM now would be lost
    heed_sigterm()
    try:
        _serve(config)
    except Terminated:  # before the server listened
        log.info("ended by SIGTERM")
    return ""


def _serve(config: Config) -> None:
    from steps.core.parent import end_with_parent
    from steps.serving.server import run as run_server

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", force=True
    )
    for noisy in ("alembic", "httpx", "mlflow.store", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    end_with_parent()
    run_server(config)


if __name__ == "__main__":
    serve()
