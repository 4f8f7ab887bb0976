"""What a user sees at the end: what was promoted, and where to look."""

import shlex
from urllib.parse import quote

import mlflow
from mlflow.tracking import MlflowClient

from steps.config.root import ROOT, Config
from steps.core import screen, search
from steps.core.redaction import redact_credentials
from steps.evaluation import publish
from steps.evaluation.presentation import closing_table
from steps.registry.result import Promotion, Row

QUESTION = "What is the capital of Germany?"
DEFAULT_NAME, DEFAULT_ALIAS = "smollm2-135m-instruct", "champion"  # what `make ask` asks
UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens


def show(promotion: Promotion) -> None:
    """Print the closing table, at most 80 columns where there is no terminal: version, variant,
    aliases, verdict, scores.
    """
    title = f"{promotion.name}{' (dry run: nothing was changed)' if promotion.dry_run else ''}"
    measured = any(row.scores for row in promotion.rows)  # a rollback goes by no report
    table = closing_table.table("version", title, measured=measured)
    for row in promotion.rows:
        verdict = closing_table.verdict(row.decision, row.failed_gates)
        figures = closing_table.figures(row.scores) if measured else []
        table.add_row(_version(row), verdict, *figures)
    screen.console().print(table, "")
    screen.console(widest=screen.WIDTH).print(promotion.reason, markup=False)


def _version(row: Row) -> str:
    """Number and variant, and below them the aliases."""
    aliases = " ".join(f"@{alias}" for alias in row.aliases)
    return f"{row.version or 'new'} {row.variant}" + (f"\n{aliases}" if aliases else "")


def say_where_to_look(config: Config, report_uri: str = "") -> None:
    """Print where the report lies, and the commands that open the UI on the result and talk to the
    champion.
    """
    name, alias = config.model.registered_name, config.promotion.alias
    lines = {"report": publish.page(report_uri)} if report_uri else {}
    client = MlflowClient()
    if not client.search_registered_models(search.equals("name", name)):
        lines["next"] = f"{name} is not registered yet: a run without dry_run=true registers it"
    else:
        lines |= commands(mlflow.get_tracking_uri(), name, alias)
        if alias not in client.get_registered_model(name).aliases:
            held = f"not yet: {name} has no {alias}; what stands above says why"
            lines = {key: text for key, text in lines.items() if key in ("report", "look")}
            lines["ask"] = held
    # whoever reads the screen copies the commands: paths stay whole there
    shown = [f"{key + ':':<8}{redact_credentials(text)}" for key, text in lines.items()]
    print("", *shown, sep="\n", flush=True)


def commands(tracking_uri: str, name: str, alias: str) -> dict[str, str]:
    """The commands that open the UI, ask the alias a question, chat with it and serve it, by what
    they do.

    Args:
        tracking_uri: where the registry is.
        name: registered model.
        alias: alias to ask.
    """
    page = f"/#/models/{quote(name)}"
    given = f"NAME={shlex.quote(name)} " if name != DEFAULT_NAME else ""
    chosen = given + (f"ALIAS={alias} " if alias != DEFAULT_ALIAS else "")
    followed = f"serve.alias={alias}" if alias != DEFAULT_ALIAS else ""
    if tracking_uri == f"sqlite:///{ROOT}/mlflow.db":
        return {
            "look": f"make ui   then {UI}{page}",
            "ask": f'make ask {chosen}Q="{QUESTION}"',
            "chat": f"make chat {chosen}".rstrip(),
            "serve": f"make serve {given}{followed and f'OVERRIDES={followed}'}".rstrip(),
        }
    if tracking_uri.startswith("http"):
        look = f"{tracking_uri}{page}"
    else:
        look = f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}   then {UI}{page}"
    code = (
        f'import mlflow; model = mlflow.pyfunc.load_model("models:/{name}@{alias}");'
        ' print(model.predict({"messages": [{"role": "user", "content":'
        f' "{QUESTION}"}}]}})[0]["choices"][0]["message"]["content"])'
    )
    there = f"MLFLOW_TRACKING_URI={shlex.quote(tracking_uri)} python"
    of = f"--name {shlex.quote(name)}" + (f" --alias {alias}" if alias != DEFAULT_ALIAS else "")
    return {
        "look": look,
        "ask": f"{there} -c {shlex.quote(code)}",
        "chat": f"{there} -m steps.chat {of}",
        "serve": (
            f"{there} -m steps.serve target={shlex.quote(f'models:/{name}')} {followed}".rstrip()
        ),
    }
