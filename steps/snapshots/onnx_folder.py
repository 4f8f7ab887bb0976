"""Makes an ONNX Runtime GenAI folder ready to be served: the checkpoint's tokenizer and template,
one set of end tokens, true limits.

Child process: ``python -m steps.snapshots.onnx_folder <folder> <checkpoint>`` changes the folder in
place.
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steps.snapshots.decoder_layers import windows_of
from steps.snapshots.last_position import write_last_position
from steps.wrappers.capabilities import limits_of, template_of
from steps.wrappers.served.limits import CAPABILITIES, Limits

log = logging.getLogger(__name__)


def prepare(folder: Path, checkpoint: Path) -> None:
    """Give a folder what the checkpoint says, whoever built it.

    Args:
        folder: holds genai_config.json and the graph; changed in place.
        checkpoint: what the graph was built from.

    Raises:
        ValueError: the checkpoint names no end token, or no context length.
    """
    from transformers import AutoConfig, AutoTokenizer

    AutoTokenizer.from_pretrained(checkpoint, local_files_only=True).save_pretrained(folder)
    path = folder / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    wanted = windows_of(AutoConfig.from_pretrained(checkpoint, local_files_only=True))
    limits = capped(
        limits_of(checkpoint),
        wanted,
        graph_windows(folder / config["model"]["decoder"]["filename"]),
        config,
    )
    config["model"]["eos_token_id"] = list(limits.eos_token_ids)
    config["model"]["context_length"] = limits.context_length
    config.setdefault("search", {})["max_length"] = limits.context_length
    path.write_text(json.dumps(config, indent=4), encoding="utf-8")
    if not config["model"]["decoder"].get("session_options", {}).get("provider_options"):  # CPU
        write_last_position(folder / config["model"]["decoder"]["filename"])
    capabilities = {"limits": limits.to_json(), "template": template_of(folder)}
    (folder / CAPABILITIES).write_text(
        json.dumps(capabilities, indent=1, ensure_ascii=False), encoding="utf-8"
    )


def graph_windows(graph: Path) -> list[int | None] | None:
    """Sliding window of each attention layer of a graph, in tokens; None for full attention.

    Returns:
        None where the graph's attention is not by ``GroupQueryAttention``, the one operator here
        that knows windows.
    """
    import onnx

    model = onnx.load(graph, load_external_data=False)
    windows: list[int | None] = []
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention":
            sizes = [
                attribute.i for attribute in node.attribute if attribute.name == "local_window_size"
            ]
            windows.append(sizes[0] if sizes and sizes[0] > 0 else None)
    return windows or None


def capped(
    limits: Limits,
    wanted: Sequence[int | None],
    built: Sequence[int | None] | None,
    config: dict[str, dict[str, object]],
) -> Limits:
    """The limits, with a context no longer than what the graph computes as the checkpoint does.

    Args:
        limits: the checkpoint's own.
        wanted: sliding window of each layer of the checkpoint.
        built: sliding window of each layer of the graph; None where it cannot be known.
        config: content of genai_config.json.
    """
    longest, why = limits.context_length, None
    have = list(built) if built is not None and len(built) == len(wanted) else [None] * len(wanted)
    differing = [
        window
        for pair in zip(wanted, have, strict=True)
        if pair[0] != pair[1]
        for window in pair
        if window
    ]
    decoder = config["model"].get("decoder")
    ring = decoder.get("sliding_window") if isinstance(decoder, dict) else None
    if differing and min(differing) < longest:
        longest = min(differing)
        why = (
            f"the ONNX graph lacks the checkpoint's sliding window of {longest} tokens, so its"
            " answers are right up to there alone"
        )
    elif ring and not ring.get("layers") and int(ring["window_size"]) < longest:
        # the engine then bounds the cache of every layer, while the graph takes it for a whole one
        longest = int(ring["window_size"])
        why = f"the KV cache of the ONNX folder ends at {longest} tokens"
    stated = config["model"].get("context_length")
    if isinstance(stated, int) and stated < longest:
        longest, why = stated, f"the ONNX folder was built for {stated} tokens"
    return replace(limits, context_length=longest, capped=why)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
