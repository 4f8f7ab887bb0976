"""Schema of the group ``promotion/``: what a version must show, and which one wins."""

import re
from dataclasses import asdict, dataclass, field

from steps.config import bounds
from steps.config.bounds import Bound, above, at_least, between, bounded
from steps.config.gates import GatesConfig
from steps.config.isolation import Isolation
from steps.core import signatures
from steps.core.errors import ConfigError

ALIAS = re.compile(r"[a-z][a-z0-9_-]*")
VERSION_LIKE = re.compile(r"v\d+")  # MLflow keeps v1, v2 … for itself
KEPT_ALIASES = frozenset({"latest", "transformers", "onnx", "previous", "challenger", "candidate"})
OLDEST_EVIDENCE = 36_500  # days: a hundred years, for a policy by which evidence never gets too old
EVIDENCE_AGE = Bound(
    lambda days: 0 < days <= OLDEST_EVIDENCE, f"days above 0 and at most {OLDEST_EVIDENCE}"
)


@dataclass
class WeightsConfig:
    """Exponents of a weighted geometric mean over each objective's ratio to the best candidate; 0
    leaves an objective out.
    """

    # quality/score, higher is better
    quality: float = bounded(24.0, at_least(0, "a number"))
    # seconds for an answer of 64 tokens: speed/ttft_p50_s + 63 * speed/itl_p50_s
    latency: float = bounded(1.0, at_least(0, "a number"))
    memory: float = bounded(1.0, at_least(0, "a number"))  # memory/peak_rss_bytes
    size: float = bounded(0.5, at_least(0, "a number"))  # size/bytes

    def __post_init__(self) -> None:
        bounds.check(self, "promotion.weights")
        if not any(asdict(self).values()):
            raise ConfigError("promotion.weights", "all 0", "at least one weight above 0")


@dataclass
class CanaryConfig:
    """What a version must do in a fresh process, without network, before an alias may point at
    it.
    """

    timeout: float = bounded(300.0, above(0, "seconds"))  # from start to exit
    # peak resident bytes
    memory_limit_bytes: int = bounded(8_589_934_592, at_least(1, "bytes"))
    concurrency: int = bounded(4, at_least(1))  # requests sent at once
    # required: no alias moves unless a model can be kept from network, processes, files
    isolation: Isolation = Isolation.preferred

    def __post_init__(self) -> None:
        bounds.check(self, "promotion.canary")


@dataclass
class WatchConfig:
    """How `watch` learns that somebody set the alias `candidate`."""

    # seconds between two looks; with a webhook a look is a safety net, and may be rare
    interval: float = bounded(30.0, above(0, "seconds"))
    once: bool = False  # judge what stands there now, then end
    # listen here for MLflow's registry webhooks as well; null only polls
    webhook_port: int | None = bounded(None, between(0, 65535, "a port"))
    webhook_host: str = "127.0.0.1"  # address to listen on
    # environment variable that holds the webhook's secret; the value itself is never configured
    secret_env: str = "SLM_WEBHOOK_SECRET"

    def __post_init__(self) -> None:
        bounds.check(self, "promotion.watch")


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
            if not all(str(entry).strip() for entry in given):
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
    max_evidence_age_days: float = bounded(30.0, EVIDENCE_AGE)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    # PEM file of the public key that must have signed an archive, for `import` to take it
    require_signer: str | None = None
    # how long a call is retried while the tracking server does not answer
    retry_seconds: float = bounded(60.0, at_least(0, "seconds"))
    # people who must approve a version after it has passed its gates, before the alias moves; 0
    # needs none
    approvals: int = bounded(0, at_least(0))
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
        bounds.check(self, "promotion")
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
        if not all(approver.strip() for approver in self.approvers):
            raise ConfigError(
                "promotion.approvers",
                self.approvers,
                "user names and PEM files, none of them empty",
            )
        keys = [name for name in dict.fromkeys(self.approvers) if name.endswith((".pem", ".pub"))]
        called = [signatures.name_of(key) for key in keys]
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
