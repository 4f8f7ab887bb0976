"""What a transformers config says of each layer of a decoder: its sliding window, and whether its
positions are rotated.
"""

from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"  # transformers' names of layer types


def windows_of(config: Any) -> list[int | None]:
    """Sliding window of each layer in tokens, as transformers masks it; None is full attention.

    Args:
        config: a transformers configuration of a decoder.
    """
    window, layers = getattr(config, "sliding_window", None), int(config.num_hidden_layers)
    # wider than any text: full attention by another name
    if not window or window >= config.max_position_embeddings:
        return [None] * layers
    types = getattr(config, "layer_types", None)
    return [window if types is None or types[layer] == SLIDING else None for layer in range(layers)]


def without_rope(config: Any) -> list[int]:
    """Layers whose queries and keys are not rotated (SmolLM3's ``no_rope_layers`` holds 0 for each
    of them).
    """
    return [
        layer
        for layer, rotated in enumerate(getattr(config, "no_rope_layers", None) or [])
        if not rotated
    ]
