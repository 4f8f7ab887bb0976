"""One matrix for both ends of a tied model: embeddings are read from the head's quantised weights.

The model builder writes them in float32 beside the head, which for a small model is half of all
bytes.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

BITS = 8  # of a weight; the builder itself shares those of 4
# Half a step of the quantisation is what rounding costs; a head that differs by more is not the
# embeddings.
MOST_STEPS = 1.0
ROWS = 4096  # compared at once


def share_embeddings(graph: Path) -> bool:
    """Replace a graph's float32 embeddings by the head's weights, in place.

    Args:
        graph: ``model.onnx``, its weights in one file beside it; both are written anew.

    Returns:
        Whether it was done: false where the head is not a matrix quantised to 8 bits, or its
            weights are not the embeddings.
    """
    import onnx

    model = onnx.load(graph, load_external_data=False)
    nodes = model.graph.node
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    lookup = next((node for node in nodes if _embeds(node, tensors)), None)
    head = next((node for node in nodes if "logits" in node.output), None)
    if lookup is None or head is None or head.op_type != "MatMulNBits":
        return False
    options = {attribute.name: attribute.i for attribute in head.attribute}
    width, vocabulary, block = options["K"], options["N"], options["block_size"]
    if options["bits"] != BITS or width % block:
        return False
    blocks = width // block
    onnx.load_external_data_for_model(model, str(graph.parent))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    embeddings = onnx.numpy_helper.to_array(tensors[lookup.input[0]])
    quantised = onnx.numpy_helper.to_array(tensors[head.input[1]])
    scales = onnx.numpy_helper.to_array(tensors[head.input[2]]).reshape(vocabulary, blocks)
    given = head.input[3] if len(head.input) > 3 else ""
    zeros = (
        onnx.numpy_helper.to_array(tensors[given]).reshape(vocabulary, blocks)
        if given
        else np.full((vocabulary, blocks), 1 << (BITS - 1), np.uint8)
    )
    if embeddings.shape != (vocabulary, width) or not _alike(embeddings, quantised, scales, zeros):
        return False
    make = onnx.numpy_helper.from_array
    shared = [
        make(quantised.reshape(vocabulary, width), "model.embed_tokens.weight_Q8"),
        make(scales, "model.embed_tokens.weight_scales"),
        make(zeros, "model.embed_tokens.weight_zero_points"),
    ]
    gather = onnx.helper.make_node(
        "GatherBlockQuantized",
        [shared[0].name, lookup.input[1], shared[1].name, shared[2].name],
        list(lookup.output),
        name=lookup.name,
        domain="com.microsoft",
        bits=BITS,
        block_size=block,
        gather_axis=0,
        quantize_axis=1,
    )
    place = list(nodes).index(lookup)
    model.graph.initializer.remove(tensors[lookup.input[0]])
    del nodes[place]
    nodes.insert(place, gather)
    _save(model, graph, shared, [head.input[1], head.input[2], given])
    return True


def _embeds(node: Any, tensors: dict[str, Any]) -> bool:
    return (
        node.op_type == "Gather"
        and "input_ids" in node.input
        and node.input[0] in tensors
        and tensors[node.input[0]].data_type == 1  # float32
    )


def _alike(embeddings: Any, quantised: Any, scales: Any, zeros: Any) -> bool:
    """Whether quantised weights are those of the embeddings, but for rounding."""
    vocabulary, blocks = scales.shape
    for start in range(0, vocabulary, ROWS):
        rows = slice(start, start + ROWS)
        own = quantised[rows].reshape(-1, blocks, embeddings.shape[1] // blocks).astype(np.float32)
        steps = scales[rows][:, :, None]
        weights = (own - zeros[rows][:, :, None]) * steps
        wanted = embeddings[rows].reshape(weights.shape)
        if not (np.abs(weights - wanted) <= MOST_STEPS * np.abs(steps) + 1e-6).all():
            return False
    return True


def _save(model: Any, graph: Path, shared: list[Any], sources: list[str]) -> None:
    """Write the graph and its weights; a shared tensor has the bytes of the head's."""
    import onnx

    data = graph.with_name(f"{graph.name}.data")
    written = graph.with_name("shared")
    written.mkdir()
    own = [tensor for tensor, source in zip(shared, sources, strict=True) if not source]
    model.graph.initializer.extend(own)
    onnx.save_model(
        model,
        written / graph.name,
        save_as_external_data=True,
        location=data.name,
        size_threshold=1024,
    )
    saved = onnx.load(written / graph.name, load_external_data=False)
    places = {tensor.name: tensor for tensor in saved.graph.initializer}
    for tensor, source in zip(shared, sources, strict=True):
        if not source:
            continue
        twin = saved.graph.initializer.add()
        twin.name, twin.data_type = tensor.name, tensor.data_type
        twin.dims.extend(tensor.dims)
        twin.data_location = onnx.TensorProto.EXTERNAL
        twin.external_data.extend(places[source].external_data)
    onnx.save(saved, written / graph.name)
    for name in (data.name, graph.name):
        (written / name).replace(graph.with_name(name))
    written.rmdir()
    log.info("embeddings are read from the head's weights")
