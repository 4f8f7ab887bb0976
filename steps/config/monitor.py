"""Schema of the group ``monitor/``: how a served version is held against its evidence."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from steps.config import bounds
from steps.config.bounds import above, at_least, between, bounded, inside
from steps.core.errors import ConfigError

FIRST_TOKEN, INTER_TOKEN, TOKENS = "time_to_first_token", "inter_token", "answer_tokens"
ERRORS, REFUSALS, FORMATS = "error_rate", "refusal_rate", "format_validity"
SAME_ANSWERS = "same_answers"
FIGURES = (FIRST_TOKEN, INTER_TOKEN, TOKENS, ERRORS, REFUSALS, FORMATS, SAME_ANSWERS)
RECORDED = 8  # prompts of the evidence that a server is asked again


@dataclass
class BandsConfig:
    """How far each live figure may be from the evidence's; null leaves the figure out."""

    # times the evidence's, for prompts of the same length; only slower is a drift. An evaluation
    # times three rounds, whose median strays by a tenth or two
    time_to_first_token: float | None = bounded(1.5, above(1, "a factor"))
    # times the evidence's, with as many requests at once; only slower is a drift
    inter_token: float | None = bounded(1.5, above(1, "a factor"))
    # tokens of an answer: times the evidence's, either way. Other people ask for other things than
    # the pack does, so this tells answers that never end or are empty
    answer_tokens: float | None = bounded(4.0, above(1, "a factor"))
    # share of requests that fail by the server's fault: above the evidence's
    error_rate: float | None = bounded(0.02, between(0, 1, "a share"))
    # share of answers that decline: from the evidence's, either way; other prompts, too
    refusal_rate: float | None = bounded(0.15, between(0, 1, "a share"))
    # share of answers under a response_format that are whole JSON: below the evidence's
    format_validity: float | None = bounded(0.05, between(0, 1, "a share"))
    # of eight recorded prompts, answers that must be equal to the evidence's where the processor is
    # the same: the evaluation asks several at once, which may change the last bits of two
    same_answers: int | None = bounded(6, between(0, RECORDED, "an integer"))
    # the same on another or an unknown processor: int8 kernels round differently there, and one
    # other token makes another text; none equal is a broken kernel
    same_answers_elsewhere: int | None = bounded(1, between(0, RECORDED, "an integer"))

    def __post_init__(self) -> None:
        bounds.check(self, "monitor.bands")


@dataclass
class MonitorConfig:
    """A look at how a version does where it is served, beside how it did in its evaluation."""

    # hours up to now whose sampled requests count
    period_hours: float = bounded(24.0, above(0, "hours"))
    max_requests: int = bounded(2000, at_least(1))  # sampled requests that are read, newest first
    # requests that a figure needs, below which nothing is said of it
    min_requests: int = bounded(50, at_least(10))
    # of all intervals together: the chance that no figure is called a drift in a period in which
    # none has left its band
    confidence: float = bounded(0.95, inside(0.5, 1, "a number"))
    resamples: int = bounded(2000, at_least(100))  # of the block bootstrap
    seed: int = 0  # of the bootstrap
    bands: BandsConfig = field(default_factory=BandsConfig)

    # address of a running server, such as http://127.0.0.1:8000, that is asked eight recorded
    # prompts; null asks none
    endpoint: str | None = None
    # environment variable that holds the API key for it; the value itself is never configured
    api_key_env: str = "SLM_MONITOR_API_KEY"
    timeout: float = bounded(120.0, above(0, "seconds"))  # of one recorded prompt

    # move the alias back to the version before when a figure of `rollback_on` has left its band
    rollback: bool = False
    # figures that a rollback follows; what people ask for moves the tokens and refusals of any
    # version, so these are not among them
    rollback_on: list[str] = field(
        default_factory=lambda: [FIRST_TOKEN, INTER_TOKEN, ERRORS, FORMATS, SAME_ANSWERS]
    )

    def __post_init__(self) -> None:
        bounds.check(self, "monitor")
        for figure in self.rollback_on:
            if figure not in FIGURES:
                raise ConfigError("monitor.rollback_on", figure, f"some of {', '.join(FIGURES)}")
        if self.endpoint is not None:
            try:
                parts = urlsplit(self.endpoint)
                valid = parts.scheme in ("http", "https") and bool(parts.hostname)
                valid = valid and parts.username is None and (parts.port is None or parts.port > 0)
            except ValueError:  # a port that is not a number
                valid = False
            if not valid:
                raise ConfigError(
                    "monitor.endpoint",
                    self.endpoint if "@" not in self.endpoint else "***",
                    "an address of http:// or https:// without a user name and password",
                    f"export the API key as {self.api_key_env}",
                )
