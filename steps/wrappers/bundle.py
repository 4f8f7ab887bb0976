"""Joins the files of ``served/`` into the one self-contained file that a model is logged with.

One file because MLflow loads models from code under a fresh module name: two logged versions with
different code can then be loaded side by side, which shared helper modules on ``sys.path`` would
break.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

SERVED = Path(__file__).with_name("served")
GRAMMARS = (
    *("regex_bounds", "schema_size", "schema_plain", "schema_bounds", "lark_bounds"),
    "grammars",
)
TEMPLATE = (
    "template",
    "template_probe",
    "template_tools",
    "template_tools_probe",
    "template_thinking",
    "template_capabilities",
    "template_kwargs",
)
REQUEST = (
    *("request_neutral", "request_messages", "request_tools", "request_values"),
    *("request_scores", "request", "request_rows", "request_limits"),
)
CONVERSATION = ("special_texts", "conversation_tools", "conversation_arrival", "conversation")
ANSWER = ("reasoning", "call_bodies", "call_formats", "tool_calls", "call_form", "answer")
COMMON = (
    *("invalid_request", "checkpoint_files", "limits"),
    *(*GRAMMARS, *TEMPLATE, *REQUEST, *CONVERSATION, "tokenizer", *ANSWER),
    *("backend", "scheduler", "sampling", "logprobs", "exchange", "settings", "logged_files"),
    *("fork_safety", "engine"),
    *("grammar_turns", "grammar_matchers", "grammar_process", "grammar_trial", "model"),
)
ONNX = (
    *("kv_cache", "prefix_blocks", "onnx_graph", "onnx_options", "onnx_rows"),
    *("prefix_cache", "onnx_generators", "onnx_static_batches", "onnx_backend"),
    *("onnx_model", "entry_onnx"),
)
PARTS = {
    "onnx": (*COMMON, *ONNX),
    "transformers": (
        *COMMON,
        *("transformers_rows", "transformers_backend", "transformers_model", "entry_transformers"),
    ),
}


def _names(node: ast.stmt) -> Iterator[tuple[str, str | None]]:
    """Names that a statement at the top gives a meaning; with the import that it is, which other
    parts may repeat, else None.
    """
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name, None
    elif isinstance(node, ast.Assign):
        yield from (
            (name.id, None)
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        )
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, None
    elif isinstance(node, ast.Import):
        yield from (
            (alias.asname or alias.name.split(".")[0], f"{alias.name if alias.asname else ''}")
            for alias in node.names
        )
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield from (
            (alias.asname or alias.name, f"{node.module} {alias.name}") for alias in node.names
        )


def bundle(variant: str) -> str:
    """Build the source of one variant's logged file.

    Args:
        variant: ``onnx`` or ``transformers``.

    Raises:
        ValueError: two parts define the same name, or a part imports one that comes after it.
    """
    defined: dict[str, tuple[str, str | None]] = {}
    sections = [
        f'"""A small language model behind the chat contract; variant {variant}. Joined from'
        ' steps/wrappers/served."""\n'
    ]
    seen: set[str] = set()
    for part in PARTS[variant]:
        source = (SERVED / f"{part}.py").read_text("utf-8")
        tree = ast.parse(source)
        lines = source.splitlines()
        for node in tree.body:
            for name, imported in _names(node):
                known = defined.setdefault(name, (part, imported))
                if known[1] != imported or (imported is None and known[0] != part):
                    raise ValueError(
                        f"served/{part}.py defines {name}, as served/{known[0]}.py does; give one"
                        " another name"
                    )
            if isinstance(node, ast.ImportFrom) and node.level:
                if node.module not in seen:
                    raise ValueError(
                        f"served/{part}.py imports .{node.module}, which is not a part before it in"
                        f" PARTS[{variant!r}]"
                    )
                for line in range(node.lineno - 1, node.end_lineno or node.lineno):
                    lines[line] = ""
        seen.add(part)
        docstring = tree.body[0]
        body = "\n".join(lines[docstring.end_lineno :]).strip("\n")
        sections.append(
            f"# --- {part}: {(ast.get_docstring(tree) or '').splitlines()[0]}\n\n{body}\n"
        )
    return "\n\n".join(sections)
