"""What a model can do, as data and in words for its tags, its log and its card."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.wrappers.served.limits import Limits


def capabilities_of(folder: Path) -> dict[str, Any]:
    """What was found of a folder's checkpoint.

    Args:
        folder: a prepared ONNX folder, which holds what was found, or a checkpoint.

    Returns:
        ``limits`` (`steps.wrappers.served.limits.Limits`) and ``template`` as plain values.
    """
    from steps.wrappers.served.limits import CAPABILITIES

    known = folder / CAPABILITIES
    if known.is_file():
        return dict(json.loads(known.read_text(encoding="utf-8")))
    return {"limits": limits_of(folder).to_json(), "template": template_of(folder)}


def limits_of(checkpoint: Path) -> "Limits":
    """A checkpoint's limits, with LongRoPE's border as transformers has it: its config classes know
    one where config.json is silent.
    """
    from transformers import AutoConfig

    from steps.wrappers.served.limits import limits_of_checkpoint

    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    rope = getattr(config, "rope_parameters", None) or {}
    limits = limits_of_checkpoint(checkpoint)
    if rope.get("rope_type") != "longrope":
        return limits
    border = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    return replace(
        limits, rope_border=int(border) if border and border < limits.context_length else None
    )


def template_of(folder: Path) -> dict[str, Any]:
    """What a folder's chat template can do, found by rendering it."""
    from steps.wrappers.served.template import ChatTemplate
    from steps.wrappers.served.template_capabilities import TemplateCapabilities

    return TemplateCapabilities.of(ChatTemplate(folder)).to_json()


def in_words(capabilities: dict[str, Any]) -> list[str]:
    """What a caller must know, one clause each."""
    limits, template = capabilities["limits"], capabilities.get("template", {})
    context = f"context of {limits['context_length']} tokens"
    words = [f"{context}: {limits['capped']}" if limits.get("capped") else context]
    if not template.get("system_role", True):
        words.append("no system role: requests with a system message are refused")
    if "tools" in template and not template["tools"]:
        words.append("no tools: requests that offer some are refused")
    thinking = template.get("thinking")
    if thinking:
        switch = (
            f" (chat_template_kwargs={{'{thinking['switch']}': false}} switches it off)"
            if thinking.get("switch")
            else ""
        )
        words.append(f"reasons before it answers{switch}")
    return words
