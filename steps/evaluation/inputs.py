"""What an evaluation reads besides its config: models, and a user's packs, texts and tasks."""

from pathlib import Path

from steps.config.root import Config
from steps.core import digest, signatures
from steps.core.errors import ConfigError, StepError
from steps.core.model_uri import model_id_of
from steps.evaluation import packs
from steps.pipeline.artifact_lookup import digest_of, exists


def candidates(config: Config) -> list[str]:
    """URIs of the models that are evaluated."""
    return config.evaluate.candidates or [
        uri for uri in (config.transformers_uri, config.onnx_uri) if uri
    ]


def incumbent(config: Config) -> str | None:
    """URI of what serves now, also where it is one of the candidates: the others are compared with
    it.
    """
    uri = f"models:/{config.model.registered_name}@{config.promotion.alias}"
    return uri if config.evaluate.incumbent and exists(uri) else None


def digests(config: Config) -> dict[str, str]:
    """Digests of the inputs that no config key holds the URI of.

    The signer counts, as a report without that signature is another output.

    Raises:
        ConfigError: a folder, a candidate or the signing key is not there.
    """
    signer = {"signing_key": signatures.signer_of(config.signing_key)} if config.signing_key else {}
    return {**_folders(config), **_models(config), **signer}


def _folders(config: Config) -> dict[str, str]:
    """The user's own packs, texts and tasks by their bytes; what is shipped is part of the
    source.
    """
    settings = config.evaluate
    digests: dict[str, str] = {}
    pack = packs.folder_of(settings.pack)
    if not pack.is_relative_to(packs.SHIPPED):
        digests["evaluate.pack"] = digest.of_value(
            [digest.of_folder(pack), packs.load(settings.pack).digest]
        )
    texts = settings.fidelity.texts if settings.fidelity.enabled else None
    tasks = settings.lm_eval_path if settings.lm_eval_tasks else None
    for key, chosen in (("evaluate.fidelity.texts", texts), ("evaluate.lm_eval_path", tasks)):
        if chosen:
            try:
                digests[key] = digest.of_folder(Path(chosen).expanduser())
            except FileNotFoundError as error:
                raise ConfigError(key, chosen, "a folder that holds files") from error
    return digests


def _models(config: Config) -> dict[str, str]:
    """The candidates that the config names, for an alias moves; and the incumbent, unless it is one
    of the candidates.

    Promoting a candidate asks for no new evaluation of it.
    """
    digests: dict[str, str] = {}
    for number, uri in enumerate(config.evaluate.candidates):
        try:
            digests[f"evaluate.candidates.{number}"] = digest_of(f"models:/{model_id_of(uri)}")
        except StepError as error:
            raise ConfigError("evaluate.candidates", uri, "a logged model", str(error)) from error
    serving = incumbent(config)
    if serving and model_id_of(serving) not in map(model_id_of, candidates(config)):
        digests["incumbent"] = digest_of(serving)
    return digests
