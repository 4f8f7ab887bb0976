"""``report.html`` of a finished evaluation, rendered anew from its ``report.json``: how a report
looks, and which profile it recommends by, do not belong to the evidence.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import TemplateError
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from steps.config.promotion import PromotionConfig
from steps.core import digest, tags
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.evaluation.presentation import html_report
from steps.evaluation.publish import PAGE
from steps.evaluation.report import Report
from steps.pipeline.artifact_lookup import read_text
from steps.pipeline.source import source_digest

log = logging.getLogger(__name__)
FOLDER = "steps/evaluation/presentation"


def mark(policy: PromotionConfig) -> str:
    """Digest of all that makes a report's page besides the report."""
    source = source_digest("steps.evaluation.presentation.html_report", (FOLDER,))
    return digest.of_value([source, policy.profile, asdict(policy.weights)])


def refresh(report_uri: str, policy: PromotionConfig) -> bool:
    """Render the page of a reused report anew where it would look different today.

    Args:
        report_uri: ``runs:/<run>/report.json``.
        policy: whose profile recommends.

    Returns:
        Whether it was rendered. That it cannot be, as for a user who may only read, is a warning.
    """
    run_id = report_uri.removeprefix("runs:/").partition("/")[0]
    client, wanted = MlflowClient(), mark(policy)
    try:
        same = client.get_run(run_id).data.tags.get(tags.PRESENTATION) == wanted
        if same and any(file.path == PAGE for file in client.list_artifacts(run_id)):
            return False
        report = Report.from_json(read_text(report_uri))
        with TemporaryDirectory(prefix="report-") as folder:
            html_report.write(report, Path(folder), policy)
            client.log_artifacts(run_id, folder)
        client.set_tag(run_id, tags.PRESENTATION, wanted)
    except (MlflowException, StepError, TemplateError, OSError, ValueError) as error:
        log.warning("%s of run %s stays as it is: %s", PAGE, run_id, redact(str(error)))
        return False
    log.info("%s of run %s: rendered anew from report.json", PAGE, run_id)
    return True
