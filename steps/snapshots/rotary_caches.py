"""Rotary embeddings of a graph, replaced by transformers' own where the model builder computed
others.

A graph holds the cosines and sines of every position as constants. The builder 0.18 has formulas of
its own for them, which are not transformers' for YaRN, and it scales Gemma-3's local layers as its
global ones: such a graph loads, answers, and is wrong from the first token.
"""

import inspect
import logging
import re
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
LAYER = re.compile(r"/layers\.(\d+)/")
# operator: which inputs are cosines and sines
CACHES = {"GroupQueryAttention": (7, 8), "RotaryEmbedding": (2, 3)}
TOLERANCE = 1e-3  # half-precision constants differ from float32 by up to 5e-4


class Rotary:
    """Cosines and sines as a transformers model computes them, without its weights.

    Args:
        config: the checkpoint's configuration, as transformers read it.
    """

    def __init__(self, config: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        module = getattr(model.base_model, "rotary_emb", None)
        self._module = None if module is None else type(module)(config=config)
        self._by_type = (
            module is not None and "layer_type" in inspect.signature(module.forward).parameters
        )
        self._types = getattr(config, "layer_types", None)

    def caches(self, layer: int, length: int) -> tuple[Any, Any] | None:
        """Cosines and sines of positions below ``length`` in a layer, each (length, half of the
        rotated width); None where it has none.
        """
        import torch

        if self._module is None:
            return None
        given = {"layer_type": self._types[layer]} if self._by_type and self._types else {}
        with torch.inference_mode():
            cos, sin = self._module(torch.zeros(1, 1, 1), torch.arange(length)[None], **given)
        half = cos.shape[-1] // 2
        return cos[0, :, :half].numpy(), sin[0, :, :half].numpy()


def correct(graph: Path, config: Any) -> int:
    """Compare a graph's constants with transformers' and replace those that differ.

    Args:
        graph: ``model.onnx``; changed in place, its weights stay in the file beside it.
        config: the checkpoint's configuration, as transformers read it.

    Returns:
        How many constants were replaced.

    Raises:
        RuntimeError: they have another shape, so they mean something else.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    model = onnx.load(graph, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    # those that LongRoPE chooses while it runs are not constants of a node, and are not here
    users = _users(model, tensors)
    rotary = Rotary(config) if users else None
    replaced = 0
    for (cosines, sines), layer in users.items():
        caches = {}
        for name in (cosines, sines):
            if uses_external_data(tensors[name]):
                load_external_data_for_tensor(tensors[name], str(graph.parent))
            caches[name] = numpy_helper.to_array(tensors[name])
        expected = rotary.caches(layer, caches[cosines].shape[0]) if rotary else None
        if expected is None:
            continue
        for name, values in zip((cosines, sines), expected, strict=True):
            cache = caches[name]
            if values.shape != cache.shape:
                raise RuntimeError(
                    f"{name} has the shape {cache.shape}, and transformers' is {values.shape}"
                )
            if not np.allclose(cache.astype(np.float32), values, atol=TOLERANCE, rtol=0):
                tensors[name].CopyFrom(numpy_helper.from_array(values.astype(cache.dtype), name))
                replaced += 1
    if replaced:
        log.info(
            "%d constants of the rotary embeddings were replaced by transformers' own", replaced
        )
        for tensor in model.graph.initializer:
            if uses_external_data(tensor) and tensor.HasField("raw_data"):
                tensor.ClearField("raw_data")  # read for the comparison only: it stays where it is
        onnx.save(model, graph)
    return replaced


def _users(model: Any, tensors: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Pairs of constants, with the first layer that reads them."""
    users: dict[tuple[str, str], int] = {}
    for node in model.graph.node:
        places, layer = CACHES.get(node.op_type), LAYER.search(node.name)
        if places is None or layer is None or len(node.input) <= places[1]:
            continue
        pair = (node.input[places[0]], node.input[places[1]])
        if pair[0] in tensors and pair[1] in tensors:
            users.setdefault(pair, int(layer[1]))
    return users
