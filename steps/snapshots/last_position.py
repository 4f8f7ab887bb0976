"""A second graph over the same weights, whose head is computed for the last position of a text.

An answer needs no other scores of its prompt; fidelity does, and reads the first graph.
"""

import logging
from pathlib import Path
from typing import Any

from steps.wrappers.served.onnx_graph import LAST_POSITION

log = logging.getLogger(__name__)

HEADS = {"MatMul", "MatMulNBits", "Gemm"}  # operators that multiply by the weights of the head
LOGITS = "logits"


def write_last_position(graph: Path) -> None:
    """Write ``model.last.onnx`` beside a graph, unless its head is not one matrix product.

    Args:
        graph: ``model.onnx``; its weights stay in the file beside it.
    """
    import onnx

    model = onnx.load(graph, load_external_data=False)
    head = _head(model.graph)
    if head is None:
        log.info("%s: its head was not found; it is computed for every position", graph.name)
        return
    last = onnx.helper.make_tensor("last_position", onnx.TensorProto.INT64, [1], [-1])
    model.graph.initializer.append(last)
    states = head.input[0]  # (batch, tokens, hidden)
    gather = onnx.helper.make_node(
        "Gather",
        [states, last.name],
        ["last_hidden_states"],  # (batch, 1, hidden)
        name="/model/last_position/Gather",
        axis=1,
    )
    model.graph.node.insert(list(model.graph.node).index(head), gather)
    head.input[0] = gather.output[0]
    for value in [*model.graph.value_info, *model.graph.output]:
        if value.name == head.output[0] or value.name == LOGITS:
            value.type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, graph.with_name(LAST_POSITION))


def _head(graph: Any) -> Any | None:
    """The node that multiplies hidden states by the weights of the head; between it and the logits
    lie at most operators that treat every score alike, such as a soft cap.
    """
    makers = {name: node for node in graph.node for name in node.output}
    name = LOGITS
    while name in makers:
        node = makers[name]
        if node.op_type in HEADS:
            return node
        name = node.input[0]
    return None
