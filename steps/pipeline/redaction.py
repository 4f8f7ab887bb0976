"""What must not reach a run: secrets and the user's home folder."""

import os
import re
from pathlib import Path
from typing import Any

SECRET_NAMES = re.compile(r"(TOKEN|PASSWORD|SECRET|API_KEY|ACCESS_KEY)", re.IGNORECASE)
# user:password of any URL, and a user alone where the web is meant: forges take a token there
CREDENTIALS = re.compile(r"""(?<=://)[^/\s:@"']+:[^/\s"']+(?=@)|((?<=http://)|(?<=https://))[^/\s@"']+(?=@)""")
SHORTEST_SECRET = 6  # characters; shorter values would blot out ordinary words


def redact(text: str) -> str:
    """``text`` without credentials, and with ``~`` for the home folder's path."""
    text = redact_credentials(text)
    home = str(Path.home())
    return text if home == "/" else re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w-]|\.\w)", "~", text)


def redact_credentials(text: str) -> str:
    """``text`` without credentials in URLs or values of secret environment variables."""
    text = CREDENTIALS.sub("***", text)
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text


def redact_leaves(value: Any) -> Any:
    """``redact`` on every text in nested mappings and lists: in their YAML it could break the syntax."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_leaves(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_leaves(item) for item in value]
    return value


def redact_override(word: str) -> str:
    """``key=value`` redacted; Hydra's grammar takes the ``~`` of a home folder in quotes only."""
    shown = redact(word)
    key, equals, value = shown.partition("=")
    if shown == word or not equals or any(mark in value for mark in "'\"[{("):
        return shown
    return f"{key}='{value}'" if "~" in value else shown
