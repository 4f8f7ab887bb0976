"""The checkpoint's chat templates, rendered as transformers does, without transformers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .checkpoint_files import added_tokens, read_json
from .invalid_request import invalid_request

# names of templates; transformers takes the second where tools are given and there is one
DEFAULT, TOOL_USE = "default", "tool_use"


class ChatTemplate:
    """Renders messages with the templates of a checkpoint folder.

    The environment is the one of transformers' ``render_jinja_template``: sandboxed, blocks
    trimmed, loop controls, ``raise_exception``, ``strftime_now`` and a ``tojson`` that leaves
    characters as they are.

    Args:
        folder: holds ``chat_template.jinja`` (with ``additional_chat_templates/*.jinja``), a
            ``tokenizer_config.json`` with ``chat_template``, or ``chat_template.json``.
    """

    def __init__(self, folder: Path) -> None:
        settings = read_json(folder / "tokenizer_config.json")
        self.sources = _sources(folder, settings)
        self.special = _special_values(folder, settings)
        self.added = _added_tokens(folder, settings)
        self.special_texts = {text for text, special in self.added.items() if special} | set(
            self.special.values()
        )
        self._compiled: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": {}}

    def name_for(self, tools: object) -> str:
        """Name of the template that transformers would take, with or without tools."""
        return TOOL_USE if tools and TOOL_USE in self.sources else DEFAULT

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        *,
        name: str = DEFAULT,
        opening: bool = True,
    ) -> str:
        """Render messages as they are.

        Args:
            messages: as the template reads them.
            variables: what the template reads beside messages, ``tools`` among them.
            name: of the template.
            opening: end where the assistant's answer begins.

        Raises:
            MlflowException: the folder has no such template, or the template refuses the
                conversation.
        """
        source = self.sources.get(name)
        if source is None:
            cure = (
                f"this one has {sorted(self.sources)} alone; name one of them default"
                if self.sources
                else "this one has none"
            )
            raise invalid_request(
                "messages",
                "given",
                "a model with a chat template",
                f"{cure}; send a templated `prompt`",
            )
        import jinja2

        given = {"tools": None, "documents": None, **self.special, **(variables or {})}
        try:
            if name not in self._compiled:
                self._compiled[name] = _environment().from_string(source)
            return str(
                self._compiled[name].render(
                    {**given, "messages": list(messages), "add_generation_prompt": opening}
                )
            )
        except (
            jinja2.TemplateError,
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            RecursionError,
        ) as error:
            # beside its own refusals: what Python raises in a template that looks for what a
            # message does not have
            roles = [message.get("role") for message in messages]
            raise invalid_request(
                "messages", roles, f"a conversation the chat template takes ({error})"
            ) from error

    def variables(self, name: str = DEFAULT) -> list[str]:
        """Names that a template reads from outside before it gives them a value itself, in the
        order in which it reads them.
        """
        import jinja2
        from jinja2 import meta

        environment = _environment()
        try:
            tree = environment.parse(self.sources.get(name, ""))
            undeclared = meta.find_undeclared_variables(tree)
        except jinja2.TemplateError:  # rendering says so, with what is wrong
            return []
        first: dict[str, str] = {}
        for used, way in _uses(tree):
            first.setdefault(used, way)
        return [
            used
            for used, way in first.items()
            if way == "load" and used in undeclared and used not in environment.globals
        ]


def _sources(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name; files of their own go before what tokenizer_config.json holds."""
    given = (
        settings.get("chat_template")
        or read_json(folder / "chat_template.json").get("chat_template")
        or {}
    )
    if isinstance(given, str):
        given = {DEFAULT: given}
    elif isinstance(given, list):
        given = {entry["name"]: entry["template"] for entry in given}
    files = {
        file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    }
    if (folder / "chat_template.jinja").is_file():
        files[DEFAULT] = folder / "chat_template.jinja"
    read = {name: file.read_text("utf-8") for name, file in files.items()}
    sources = {**({} if DEFAULT in read else given), **read}
    return {DEFAULT: next(iter(sources.values()))} if len(sources) == 1 else sources


def _special_values(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by the names that templates know them by, such as ``bos_token``."""
    extra = settings.get("extra_special_tokens")
    named = {
        **read_json(folder / "special_tokens_map.json"),
        **settings,
        **(extra if isinstance(extra, Mapping) else {}),
    }
    special: dict[str, str] = {}
    for key, value in named.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if key.endswith("_token") and isinstance(text, str):
            special[key] = text
    return special


def _added_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, bool]:
    """Texts of added tokens, with whether the tokenizer calls them special."""
    file = folder / "tokenizer.json"
    entries = [
        *settings.get("added_tokens_decoder", {}).values(),
        *(added_tokens(file.read_text("utf-8")) if file.exists() else []),
    ]
    return {
        entry["content"]: bool(entry.get("special", True))
        for entry in entries
        if isinstance(entry, Mapping) and entry.get("content")
    }


def _uses(node: Any) -> Iterator[tuple[str, str]]:
    """Names in a template in the order in which it comes to them, with ``load`` or ``store``."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        yield node.name, node.ctx
    parts = [node.node, node.target] if isinstance(node, nodes.Assign) else node.iter_child_nodes()
    for part in parts:
        yield from _uses(part)


def _environment() -> Any:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    class Generation(Extension):
        """``{% generation %}`` marks an assistant's text for training; here it passes through."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            from jinja2 import nodes

            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            # what is set inside is not seen after it, as in transformers
            return nodes.Scope(body).set_lineno(line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
