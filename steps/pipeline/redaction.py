"""The name by which the steps know ``steps.core.redaction``."""

from steps.core.redaction import SECRET_NAMES, redact, redact_credentials, redact_leaves, redact_override

__all__ = ["SECRET_NAMES", "redact", "redact_credentials", "redact_leaves", "redact_override"]
