"""report.html of a reused evaluation follows the template and the profile; the evidence stays."""

from pathlib import Path

import mlflow
import pytest

from steps.config.promotion import PromotionConfig, WeightsConfig
from steps.core import tags
from steps.evaluation import publish, rendering
from steps.evaluation.presentation import html_report
from tests.evaluation import sample

POLICY = PromotionConfig()


@pytest.mark.usefixtures("tracking")
def test_a_page_is_rendered_anew_where_it_would_look_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = sample.report("smoke", incumbent=False)
    (made := tmp_path / "made").mkdir()
    report.write(made / "report.json")
    html_report.write(report, made, POLICY)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(made))
    uri, client = f"runs:/{run.info.run_id}/report.json", mlflow.MlflowClient()
    page = Path(publish.page(uri))
    assert page.is_file() and page.name == "report.html"

    def mark() -> str | None:
        return client.get_run(run.info.run_id).data.tags.get(tags.PRESENTATION)

    assert rendering.refresh(uri, POLICY) and mark() == rendering.mark(POLICY)
    assert not rendering.refresh(uri, POLICY)  # nothing has changed since

    template = tmp_path / "report.html.j2"
    template.write_text(html_report.TEMPLATE.read_text().replace("Comparison", "Comparision"))
    monkeypatch.setattr(html_report, "TEMPLATE", template)
    monkeypatch.setattr(rendering, "source_digest", lambda *_: "sha256:mended")
    assert rendering.refresh(uri, POLICY) and "Comparision" in page.read_text()

    other = PromotionConfig(profile="mine", weights=WeightsConfig(0, 1, 0, 0))
    assert rendering.refresh(uri, other) and rendering.mark(other) == mark()
    # what may decide a promotion is as it was
    assert mlflow.artifacts.load_text(uri) == report.to_json()


@pytest.mark.usefixtures("tracking")
def test_what_cannot_be_rendered_stays_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("{}", "report.json")
    assert not rendering.refresh(f"runs:/{run.info.run_id}/report.json", POLICY)
    assert "stays as it is" in caplog.text
