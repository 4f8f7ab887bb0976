"""How much it matters that a model is kept apart from the machine that tries it."""

import logging
from collections.abc import Sequence
from enum import Enum

from steps.core.errors import ConfigError

log = logging.getLogger(__name__)


class Isolation(Enum):
    """Of a process that loads somebody's model: no network, other processes out of its sight, and
    no files but its own.
    """

    preferred = "preferred"  # what this machine's kernel does not allow is warned of and recorded
    required = "required"  # nothing is loaded unless the kernel allows all of it


def heed(key: str, wanted: Isolation, missing: Sequence[str]) -> None:
    """Refuse or warn before a model is loaded.

    Args:
        key: of the setting, such as ``evaluate.isolation``.
        wanted: its value.
        missing: what cannot be had here, one clause each, as ``steps.core.processes.missing`` gives
            it.

    Raises:
        ConfigError: isolation is required, and something is missing.
    """
    if not missing:
        return
    said = "; ".join(missing)
    if wanted is Isolation.required:
        cure = (
            "let this user make user namespaces (docs/deployment.md), or pass"
            f" {key}={Isolation.preferred.value}"
        )
        raise ConfigError(
            key,
            wanted.value,
            f"a machine that can isolate a model, and this one cannot ({said})",
            cure,
        )
    log.warning(
        "%s=%s: a model is loaded with less isolation than there could be (%s)",
        key,
        wanted.value,
        said,
    )
