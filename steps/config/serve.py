"""Schema of the group ``serve/``: what is served, to whom, and within which limits."""

import re
from dataclasses import dataclass, field

from steps.config import bounds
from steps.config.bounds import Bound, at_least, between, bounded
from steps.config.isolation import Isolation
from steps.core.errors import ConfigError

LONGEST = 86_400.0  # seconds of any time below: a day
SECONDS = Bound(lambda value: 0 < value <= LONGEST, f"seconds above 0 and at most {LONGEST:g}")
FROM_ZERO = between(0, LONGEST, "seconds")
ORIGIN = re.compile(r"https?://[^/\s?#@]+|\*")
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass
class ServeConfig:
    """An OpenAI-compatible server of registered models."""

    # registered models, or their aliases, as models:/<name> or models:/<name>@<alias>; empty is
    # `target`, or else the model of the config
    models: list[str] = field(default_factory=list)
    alias: str = "champion"  # alias that is served where a model is named without one
    # shares of the requests by alias, such as {champion:95,challenger:5}, where a model is named
    # without one; empty gives all to `serve.alias`
    split: dict[str, int] = field(default_factory=dict)
    # alias whose version is asked too, and whose answers only the metrics see; null is none
    shadow: str | None = None

    host: str = "127.0.0.1"  # address to listen on
    port: int = bounded(8000, between(0, 65535, "a port"))  # 0 takes a free one
    # seconds between two looks at the aliases
    poll_seconds: float = bounded(5.0, SECONDS)
    # environment variable that holds the secret of MLflow's registry webhook, which POST /webhook
    # then takes; the value itself is never configured
    webhook_secret_env: str = "SLM_WEBHOOK_SECRET"

    # a version must have the bytes that its tag slm.digest names; false serves one without the tag
    require_digest: bool = True
    # required: nothing is served unless a model can be kept from network, processes, files
    isolation: Isolation = Isolation.preferred
    # seconds that fetching, loading and a first answer may take together
    load_timeout: float = bounded(600.0, SECONDS)
    # resident bytes that a worker may hold; null sets no limit
    memory_limit_bytes: int | None = bounded(None, at_least(1, "bytes"))
    # seconds that the answers of a version that was replaced may still take
    drain_seconds: float = bounded(120.0, FROM_ZERO)
    # seconds that answers on their way may still take when the server is told to end
    shutdown_seconds: float = bounded(10.0, FROM_ZERO)
    # threads of a worker; 0 takes every core that this process may use
    threads: int = bounded(0, at_least(0))

    # requests that may wait for a version; one more gets a 429
    max_waiting: int = bounded(64, at_least(0))
    # seconds that a request may take from when it arrives
    request_timeout: float = bounded(120.0, SECONDS)
    max_body_bytes: int = bounded(8_000_000, at_least(1_000, "bytes"))  # of a request
    # tokens that a request may ask for; null leaves it to the model
    max_tokens: int | None = bounded(None, at_least(1))

    # file with one API key a line; read again when it changes
    api_keys_file: str | None = None
    # environment variable that holds API keys, with commas; without keys everybody may ask
    api_keys_env: str = "SLM_API_KEYS"
    # web pages of other addresses that may ask, such as https://chat.example.com; empty: none
    cors_origins: list[str] = field(default_factory=list)

    # share of the requests that become MLflow traces, drawn at random; 0 writes none, and `monitor`
    # then has nothing to read
    trace_sample: float = bounded(0.0, between(0, 1, "a share"))
    # whether a trace holds the prompt and the answer
    trace_prompts: bool = False
    # MLflow experiment that the traces are written to: none in which models are evaluated
    trace_experiment: str = "slm-serving"

    def __post_init__(self) -> None:
        bounds.check(self, "serve")
        if not self.host.strip():
            raise ConfigError(
                "serve.host", self.host, "an address, such as 127.0.0.1, or 0.0.0.0 for every one"
            )
        if self.api_keys_file is not None and not self.api_keys_file.strip():
            raise ConfigError(
                "serve.api_keys_file", self.api_keys_file, "a file with an API key a line, or null"
            )
        if not self.trace_experiment.strip():
            raise ConfigError(
                "serve.trace_experiment", self.trace_experiment, "an experiment's name"
            )
        for key, alias in (
            ("alias", self.alias),
            ("shadow", self.shadow),
            *(("split", alias) for alias in self.split),
        ):
            if alias is not None and not ALIAS.fullmatch(alias):
                raise ConfigError(
                    f"serve.{key}", alias, "an alias: letters, digits, dots, dashes, underscores"
                )
        for origin in self.cors_origins:
            if not ORIGIN.fullmatch(origin):
                raise ConfigError(
                    "serve.cors_origins", origin, "addresses such as https://chat.example.com"
                )
        if self.split and (min(self.split.values()) < 0 or not any(self.split.values())):
            raise ConfigError(
                "serve.split", dict(self.split), "shares of at least 0, one of them above 0"
            )
