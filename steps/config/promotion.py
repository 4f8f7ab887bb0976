"""Schema of the group ``promotion/``: what a version must show, and which one wins."""

import re
from dataclasses import dataclass, field, fields

from steps.config.gates import GatesConfig
from steps.config.isolation import Isolation
from steps.core import signatures
from steps.core.errors import ConfigError

ALIAS = re.compile(r"[a-z][a-z0-9_-]*")
VERSION_LIKE = re.compile(r"v\d+")  # MLflow keeps v1, v2 … for itself
KEPT_ALIASES = frozenset({"latest", "transformers", "onnx", "previous", "challenger", "candidate"})
OLDEST_EVIDENCE = 36_500  # days: a hundred years, for whom evidence is never too old


@dataclass
class WeightsConfig:
    """Exponents of a weighted geometric mean over each objective's ratio to the best candidate; 0
    leaves an objective out.
    """

    quality: float = 24.0  # quality/score, higher is better
    # seconds for an answer of 64 tokens: speed/ttft_p50_s + 63 * speed/itl_p50_s
    latency: float = 1.0
    memory: float = 1.0  # memory/peak_rss_bytes
    size: float = 0.5  # size/bytes

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"promotion.weights.{name}", getattr(self, name), "a number of at least 0"
                )
        if not any(getattr(self, each.name) for each in fields(self)):
            raise ConfigError("promotion.weights", "all 0", "at least one weight above 0")


@dataclass
class CanaryConfig:
    """What a version must do in a fresh process, without network, before an alias may point at
    it.
    """

    timeout: float = 300.0  # seconds from start to exit
    memory_limit_bytes: int = 8_589_934_592  # peak resident bytes
    concurrency: int = 4  # requests sent at once
    # required: no alias moves unless a model can be kept from network, processes, files
    isolation: Isolation = Isolation.preferred

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise ConfigError("promotion.canary.timeout", self.timeout, "seconds above 0")
        if self.memory_limit_bytes < 1:
            raise ConfigError(
                "promotion.canary.memory_limit_bytes", self.memory_limit_bytes, "bytes, at least 1"
            )
        if self.concurrency < 1:
            raise ConfigError(
                "promotion.canary.concurrency", self.concurrency, "an integer of at least 1"
            )


@dataclass
class WatchConfig:
    """How `watch` learns that somebody set the alias `candidate`."""

    # seconds between two looks; with a webhook a look is a safety net, and may be rare
    interval: float = 30.0
    once: bool = False  # judge what stands there now, then end
    # listen here for MLflow's registry webhooks as well; null only polls
    webhook_port: int | None = None
    webhook_host: str = "127.0.0.1"  # address to listen on
    # environment variable that holds the webhook's secret; the value itself is never configured
    secret_env: str = "SLM_WEBHOOK_SECRET"

    def __post_init__(self) -> None:
        if self.interval <= 0:
            raise ConfigError("promotion.watch.interval", self.interval, "seconds above 0")
        if self.webhook_port is not None and not 0 <= self.webhook_port <= 65535:
            raise ConfigError(
                "promotion.watch.webhook_port", self.webhook_port, "a port from 0 to 65535, or null"
            )


@dataclass
class EvidenceConfig:
    """Which reports may decide: by the experiment of their run, which the tracking server lets its
    editors write alone, or by signature.
    """

    # names; none: the running step's own and that of the version's logged model
    experiments: list[str] = field(default_factory=list)
    # PEM files of public keys; a report signed by one of them counts from anywhere
    signers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, given in (("experiments", self.experiments), ("signers", self.signers)):
            if not all(str(each).strip() for each in given):
                raise ConfigError(
                    f"promotion.evidence.{name}", list(given), "a list without empty entries"
                )


@dataclass
class PromotionConfig:
    """Policy that moves aliases."""

    profile: str = "balanced"  # name of the weights below, as records and cards show it
    # alias the winner gets; champion-edge and the like keep a line of their own
    alias: str = "champion"
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)
    # a report older than this no longer counts; one of exactly this age does
    max_evidence_age_days: float = 30.0
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    # PEM file of the public key that must have signed an archive, for `import` to take it
    require_signer: str | None = None
    # how long a call is retried while the tracking server does not answer
    retry_seconds: float = 60.0
    # people who must approve a version after it has passed its gates, before the alias moves; 0
    # needs none
    approvals: int = 0
    # who may approve and reject: user names of the tracking server, and PEM files (*.pem, *.pub) of
    # public keys that must have signed; empty is everybody who may edit the registered model
    # <name>.approvals, and with approvals=0 no user
    approvers: list[str] = field(default_factory=list)
    # alias to the authenticated users who may move it; others: everybody
    protected: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (
            not ALIAS.fullmatch(self.alias)
            or VERSION_LIKE.fullmatch(self.alias)
            or self.alias in KEPT_ALIASES
        ):
            kept = ", ".join(sorted(KEPT_ALIASES))
            raise ConfigError(
                "promotion.alias",
                self.alias,
                f"lower-case letters, digits and dashes, not v<number> and none of {kept}",
            )
        if not 0 < self.max_evidence_age_days <= OLDEST_EVIDENCE:
            raise ConfigError(
                "promotion.max_evidence_age_days",
                self.max_evidence_age_days,
                f"days above 0 and at most {OLDEST_EVIDENCE}",
            )
        if self.retry_seconds < 0:
            raise ConfigError(
                "promotion.retry_seconds", self.retry_seconds, "seconds of at least 0"
            )
        self._check_approvals()
        for alias, users in self.protected.items():
            if not ALIAS.fullmatch(alias) or VERSION_LIKE.fullmatch(alias):
                raise ConfigError(
                    "promotion.protected",
                    alias,
                    "aliases in lower-case letters, digits and dashes, not v<number>",
                )
            if not users or not all(user.strip() for user in users):
                raise ConfigError(
                    f"promotion.protected.{alias}",
                    users,
                    "user names of the tracking server, at least one",
                )

    def _check_approvals(self) -> None:
        if self.approvals < 0:
            raise ConfigError("promotion.approvals", self.approvals, "an integer of at least 0")
        if not all(each.strip() for each in self.approvers):
            raise ConfigError(
                "promotion.approvers",
                self.approvers,
                "user names and PEM files, none of them empty",
            )
        keys = [each for each in dict.fromkeys(self.approvers) if each.endswith((".pem", ".pub"))]
        called = [signatures.name_of(each) for each in keys]
        if twice := next((name for name in called if called.count(name) > 1), None):
            paths = [key for key, name in zip(keys, called, strict=True) if name == twice]
            raise ConfigError(
                "promotion.approvers",
                paths,
                f"key files of different names, as {twice!r} is how the history calls the approver",
                "rename one of the files after its holder",
            )
        if self.approvers and self.approvals > len(set(self.approvers)):
            most = len(set(self.approvers))
            raise ConfigError(
                "promotion.approvals",
                self.approvals,
                f"at most {most}, as promotion.approvers names so many",
            )
