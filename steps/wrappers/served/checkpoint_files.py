"""JSON files of a checkpoint folder, read without loading what stands beside them."""

import json
import re
from pathlib import Path
from typing import Any


def read_json(file: Path) -> dict[str, Any]:
    """Content of a JSON file; empty where there is none."""
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}


def added_tokens(source: str) -> list[Any]:
    """Read ``added_tokens`` of a tokenizer.json without the megabytes of vocabulary around it."""
    key = re.search(r'"added_tokens"\s*:\s*(?=\[)', source)
    tokens = (
        json.JSONDecoder().raw_decode(source, key.end())[0]
        if key
        else json.loads(source).get("added_tokens")
    )
    return list(tokens or [])
