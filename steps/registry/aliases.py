"""Names of the aliases."""

TRANSFORMERS = "transformers"
ONNX = "onnx"
VARIANTS = (TRANSFORMERS, ONNX)
CHAMPION = "champion"  # what serves, where the policy names no other alias
CANDIDATE = "candidate"  # set by a person in the UI; `watch` judges it


def previous_of(alias: str) -> str:
    """The alias that keeps what ``alias`` pointed at before: ``previous``, ``previous-edge`` …"""
    return _companion("previous", alias)


def challenger_of(alias: str) -> str:
    """The alias of the runner-up to ``alias``: ``challenger``, ``challenger-edge`` …"""
    return _companion("challenger", alias)


def _companion(word: str, alias: str) -> str:
    if alias == "champion":
        return word
    return f"{word}-{alias.removeprefix('champion-')}"
