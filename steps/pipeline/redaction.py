"""What must not reach a run: secrets and the user's home folder."""

import os
import re
from pathlib import Path

SECRET_NAMES = re.compile(r"(TOKEN|PASSWORD|SECRET|API_KEY|ACCESS_KEY)", re.IGNORECASE)
CREDENTIALS = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
SHORTEST_SECRET = 6  # characters; shorter values would blot out ordinary words


def redact(text: str) -> str:
    """``text`` without credentials in URLs, values of secret environment variables, or the home folder's path."""
    text = CREDENTIALS.sub("***", text)
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "***")
    home = str(Path.home())
    return text if home == "/" else re.sub(re.escape(home) + r"(?=/|\b|$)", "~", text)
