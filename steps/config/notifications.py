"""Schema of the node ``notifications``: whom to tell what became of a version, and how."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from steps.config import bounds
from steps.config.bounds import above, at_least, bounded
from steps.core.errors import ConfigError

PROPOSED, HELD, WAITING, APPROVED, REJECTED = "proposed", "held", "waiting", "approved", "rejected"
PROMOTED, ROLLED_BACK, OBSERVED = "promoted", "rolled_back", "observed"
DRIFTED = "drifted"  # a figure of a served version has left its band
EVENTS = (PROPOSED, HELD, WAITING, APPROVED, REJECTED, PROMOTED, ROLLED_BACK, OBSERVED, DRIFTED)


@dataclass
class NotificationsConfig:
    """A webhook that is told of events in the registry, in CloudEvents form, signed as Standard
    Webhooks are.
    """

    # http:// or https:// address that gets a POST for each event; null sends nothing
    url: str | None = None
    # environment variable that holds the signing secret, base64, as whsec_… or bare
    secret_env: str = "SLM_NOTIFICATIONS_SECRET"
    # file that holds it instead; the value itself is never configured
    secret_file: str | None = None
    events: list[str] = field(default_factory=lambda: list(EVENTS))  # which events are sent
    # seconds that one attempt waits for the receiver
    timeout: float = bounded(10.0, above(0, "seconds"))
    # seconds from the first attempt until an event is given up
    retry_seconds: float = bounded(300.0, above(0, "seconds"))
    # seconds that the end of the process waits for what was not delivered yet
    flush_seconds: float = bounded(15.0, at_least(0, "seconds"))

    def __post_init__(self) -> None:
        if self.url is not None:
            expected = "an address of http:// or https:// without a user name and password"
            try:
                parts = urlsplit(self.url)
                valid = (
                    parts.scheme in ("http", "https")
                    and bool(parts.hostname)
                    and (parts.port is None or parts.port > 0)
                )
            except ValueError:  # a port that is not a number, a broken IPv6 address
                valid = False
            if not valid:
                raise ConfigError("notifications.url", self.url, expected)
            if parts.username is not None or parts.password is not None:
                raise ConfigError(
                    "notifications.url",
                    "***",
                    expected,
                    "the signature tells the receiver who sent it",
                )
        for event in self.events:
            if event not in EVENTS:
                raise ConfigError("notifications.events", event, f"some of {', '.join(EVENTS)}")
        bounds.check(self, "notifications")
