"""Which registered model `ask` and `chat` talk to."""

from steps.config import names
from steps.config.serve import ALIAS
from steps.core.errors import ConfigError
from steps.pipeline.arguments import translate
from steps.pipeline.compose import compose_config

SCHEME = "models:/"


def uri_of(model: str, name: str | None, alias: str) -> str:
    """``models:/<name>@<alias>``.

    Args:
        model: a config of ``conf/model/``, a repository or a folder, whose registered name counts
            where ``name`` is not given.
        name: of the registered model, also as ``models:/<name>`` or ``models:/<name>@<alias>``.
        alias: where the name has none.

    Raises:
        ConfigError: not a name, or no such model config.
    """
    alias = alias.removeprefix("@")
    if not ALIAS.fullmatch(alias):
        expected = "an alias: letters, digits, dots, dashes, underscores"
        raise ConfigError("--alias", alias, expected, "write --alias champion")
    if name:
        bare, _, own = name.removeprefix(SCHEME).partition("@")
        return f"{SCHEME}{names.check('--name', bare, 'write --name my-model')}@{own or alias}"
    config = compose_config(translate(["--model", model]).overrides)
    return f"{SCHEME}{config.model.registered_name}@{alias}"
