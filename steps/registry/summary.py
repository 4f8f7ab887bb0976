"""What a user sees at the end: what was promoted, and where to look."""

import shlex
from collections.abc import Mapping
from urllib.parse import quote

import mlflow
from mlflow.tracking import MlflowClient
from rich.console import Console
from rich.table import Table

from steps.config.root import ROOT, Config
from steps.core import search
from steps.core.redaction import redact_credentials
from steps.evaluation import metrics
from steps.registry.result import Promotion

# heading, metric, format, factor
SCORES = (
    ("quality", metrics.QUALITY_SCORE, "{:.1%}", 1),
    ("tokens/s", metrics.DECODE, "{:.1f}", 1),
    ("first token", metrics.TTFT_P50, "{:.3f} s", 1),
    ("peak memory", metrics.PEAK_RSS, "{:,.0f} MB", 1e-6),
)
QUESTION = "What is the capital of France?"
DEFAULT_NAME, DEFAULT_ALIAS = "smollm2-135m-instruct", "champion"  # what `make ask` asks
PLAIN_WIDTH = 140  # columns, where the output is not a terminal


def show(promotion: Promotion) -> None:
    """Print the closing table: model, variant, version, aliases, verdict, scores."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    title = f"{promotion.name}{' (dry run: nothing was changed)' if promotion.dry_run else ''}"
    table = Table(title=title, title_justify="left")
    for heading in (
        "version",
        "variant",
        "aliases",
        "verdict",
        *(heading for heading, *_ in SCORES),
    ):
        table.add_column(heading, overflow="fold")
    for row in promotion.rows:
        verdict = row.decision + (f": {', '.join(row.failed_gates)}" if row.failed_gates else "")
        version = str(row.version) if row.version else "new"
        table.add_row(
            version, row.variant, ", ".join(row.aliases) or "-", verdict, *scores(row.scores)
        )
    console.print(table)
    console.print(promotion.reason, highlight=False)


def scores(measured: Mapping[str, float]) -> list[str]:
    """The table's figures, in the order of ``SCORES``; a dash where the report has none."""
    return [
        form.format(factor * measured[name]) if measured.get(name) is not None else "-"
        for _, name, form, factor in SCORES
    ]


def say_where_to_look(config: Config) -> None:
    """Print the commands that open the UI on the result and ask the champion."""
    name, alias = config.model.registered_name, config.promotion.alias
    if not MlflowClient().search_registered_models(search.equals("name", name)):
        print(
            f"\n{name} is not registered yet: a run without dry_run=true registers it", flush=True
        )
        return
    look, ask = commands(mlflow.get_tracking_uri(), name, alias)
    if alias not in MlflowClient().get_registered_model(name).aliases:
        ask = f"not yet: {name} has no {alias}; the table above names the gates that held"
    # whoever reads the screen copies the commands: paths stay whole there
    print(f"\nlook:  {redact_credentials(look)}\nask:   {redact_credentials(ask)}", flush=True)


def commands(tracking_uri: str, name: str, alias: str) -> tuple[str, str]:
    """The command that opens the UI and the one that asks the alias a question.

    Args:
        tracking_uri: where the registry is.
        name: registered model.
        alias: alias to ask.
    """
    if tracking_uri == f"sqlite:///{ROOT}/mlflow.db":
        chosen = (f"NAME={shlex.quote(name)} " if name != DEFAULT_NAME else "") + (
            f"ALIAS={alias} " if alias != DEFAULT_ALIAS else ""
        )
        return (
            f"make ui   then http://127.0.0.1:5000/#/models/{quote(name)}",
            f'make ask {chosen}Q="{QUESTION}"',
        )
    if tracking_uri.startswith("http"):
        look = f"{tracking_uri}/#/models/{quote(name)}"
    else:
        look = (
            f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}   then"
            f" http://127.0.0.1:5000/#/models/{quote(name)}"
        )
    code = (
        f'import mlflow; model = mlflow.pyfunc.load_model("models:/{name}@{alias}");'
        ' print(model.predict({"messages": [{"role": "user", "content":'
        f' "{QUESTION}"}}]}})[0]["choices"][0]["message"]["content"])'
    )
    return look, f"MLFLOW_TRACKING_URI={shlex.quote(tracking_uri)} python -c {shlex.quote(code)}"
