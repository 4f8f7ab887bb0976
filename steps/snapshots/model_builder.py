"""Child process: onnxruntime-genai's model builder, shown each checkpoint in the words that it
understands.

``python -m steps.snapshots.model_builder <arguments of onnxruntime_genai.models.builder>``

The builder 0.18 was written for configs as transformers 4 had them. transformers 5 writes the same
facts elsewhere, and some facts were never written: that every layer has a sliding window, or that a
layer does without rotary embeddings. Nothing here knows a model by name: what is adapted follows
from the fields that a config has. What was found is in docs/adr/0016.

The folder that it leaves is ready to be served: `steps.snapshots.onnx_folder`.
"""

import copy
from pathlib import Path
from typing import Any

from steps.snapshots.decoder_layers import FULL, SLIDING, windows_of, without_rope


def adapt(config: Any) -> None:
    """Write down, in the builder's words, what a transformers 5 config says otherwise or not at
    all.

    Args:
        config: what ``AutoConfig.from_pretrained`` returned; changed in place.
    """
    windows = windows_of(config)
    if any(windows) and getattr(config, "layer_types", None) is None:
        # without it the builder leaves every window out
        config.layer_types = [SLIDING if window else FULL for window in windows]
    rope = getattr(config, "rope_parameters", None)
    # one set for each type of layer
    if isinstance(rope, dict) and rope and all(isinstance(value, dict) for value in rope.values()):
        if SLIDING in rope:
            config.rope_local_base_freq = rope[SLIDING]["rope_theta"]
        rope = config.rope_parameters = dict(rope[FULL])
        config.rope_theta = rope["rope_theta"]
    if isinstance(rope, dict) and "rope_type" in rope:
        rope.setdefault("type", rope["rope_type"])
        if rope["rope_type"] == "dynamic":  # within the context it is the same as the plain one
            rope["rope_type"] = "default"
        # defaults of transformers' modeling_rope_utils; the builder divides by them
        if rope["rope_type"] == "yarn":
            rope["beta_fast"], rope["beta_slow"] = (
                rope.get("beta_fast") or 32,
                rope.get("beta_slow") or 1,
            )
    if without_rope(config):
        # the builder's own way for such layers asks for position ids that its graph lacks; but for
        # them it is a Llama
        config.architectures = ["LlamaForCausalLM"]


def finish(graph: Path, config: Any) -> None:
    """Set in the graph what the builder cannot be told: layers without rotary embeddings.

    Args:
        graph: ``model.onnx``; its weights stay in the file beside it.
        config: the checkpoint's configuration.
    """
    import onnx

    plain = {f"past_key_values.{layer}.key" for layer in without_rope(config)}
    if not plain:
        return
    model = onnx.load(graph, load_external_data=False)
    done = set()
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention" and node.input[3] in plain:
            next(attribute for attribute in node.attribute if attribute.name == "do_rotary").i = 0
            node.input[7] = node.input[8] = ""  # cos_cache, sin_cache
            done.add(node.input[3])
    if done != plain:
        raise RuntimeError(
            f"layers without rotary embeddings were not found in the graph: {sorted(plain - done)}"
        )
    onnx.save(model, graph)


def main() -> None:
    """Run the builder on this process's arguments."""
    from onnxruntime_genai.models import builder

    given = builder.get_args()
    place = (
        given.model_name,
        given.input,
        given.output,
        given.precision,
        given.execution_provider,
        given.cache_dir,
    )
    options = builder.parse_extra_options(*place, given.extra_options)
    config = options["hf_details"]["hf_config"]
    original = copy.deepcopy(config)
    adapt(config)
    # A bounded cache for layers with a window saves memory, but the engine then neither rewinds
    # past it nor goes on when every layer has one; a whole cache with the window in the kernel is
    # right for all.
    options.setdefault("windowed_kv_cache", False)
    builder.create_model(*place, **options)
    from steps.snapshots.onnx_folder import prepare
    from steps.snapshots.rotary_caches import correct
    from steps.snapshots.shared_embeddings import share_embeddings

    # The builder does so for tied models by itself, though for weights of 4 bits alone. Its options
    # are of any case.
    wanted = str(options.get("shared_embeddings", True)).lower() not in ("false", "0")
    if given.precision == "int8" and wanted and getattr(config, "tie_word_embeddings", False):
        share_embeddings(Path(given.output) / "model.onnx")
    finish(Path(given.output) / "model.onnx", config)
    correct(Path(given.output) / "model.onnx", original)
    prepare(Path(given.output), Path(given.input))


if __name__ == "__main__":
    main()
