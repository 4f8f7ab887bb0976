"""Which architectures the installed packages know, asked of the packages: no list of model names
stands here.
"""

import ast
import importlib.util
import logging
from functools import cache
from importlib.metadata import version
from pathlib import Path

log = logging.getLogger(__name__)
BUILDER = "onnxruntime-genai"
ASKED = "config.architectures[0]"  # what the builder's source compares with each name


def text_generator(model_type: str) -> str | None:
    """The class that generates text for a ``model_type`` in transformers, as ``architectures`` of
    config.json names it.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    generator = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    return generator if generator is None or isinstance(generator, str) else str(generator[0])


def known_type(model_type: str) -> bool:
    """Whether transformers has a config of its own for a ``model_type``."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def encodes_and_decodes(model_type: str) -> bool:
    """Whether transformers lists a ``model_type`` among the encoder-decoder models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES


@cache
def buildable() -> frozenset[str] | None:
    """The architectures that the model builder of onnxruntime-genai dispatches on, read from its
    source without running it.

    Returns:
        Their names; None where its source is not as expected, so that nothing can be said before a
        build is tried.
    """
    package = importlib.util.find_spec("onnxruntime_genai")
    places = (
        [
            Path(place) / "models" / "builder.py"
            for place in package.submodule_search_locations or ()
        ]
        if package
        else []
    )
    source = next((place for place in places if place.is_file()), None)
    names = _compared(source.read_text(encoding="utf-8")) if source else set()
    if not names:
        log.warning(
            "the model builder's source names no architecture: whether it can build this model"
            " shows when it is asked to"
        )
        return None
    return frozenset(names)


def _compared(source: str) -> set[str]:
    """Every string that ``config.architectures[0]`` is compared with for equality."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Compare)
            and ast.unparse(node.left) == ASKED
            and isinstance(node.ops[0], ast.Eq | ast.In)
        ):
            words = (
                word.value
                for word in ast.walk(node.comparators[0])
                if isinstance(word, ast.Constant)
            )
            names |= {word for word in words if isinstance(word, str)}
    return names


def builder() -> str:
    """Distribution and version of the model builder, for messages."""
    return f"{BUILDER} {version(BUILDER)}"


def transformers() -> str:
    """Distribution and version of transformers, for messages."""
    return f"transformers {version('transformers')}"
