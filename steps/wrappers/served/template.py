"""The checkpoint's own chat template, rendered as transformers renders it, without transformers."""

import contextlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .refusal import refusal

MARK_DIGITS = 40  # random, so that nobody can send it; digits alone pass unchanged through what templates do to text


class ChatTemplate:
    """Renders a conversation with the template of a checkpoint folder.

    The environment is the one of transformers' ``render_jinja_template``: sandboxed, blocks trimmed, loop controls, ``raise_exception``,
    ``strftime_now`` and a ``tojson`` that leaves characters as they are.

    Args:
        folder: holds ``chat_template.jinja`` or a ``tokenizer_config.json`` with ``chat_template``.
    """

    def __init__(self, folder: Path) -> None:
        configuration = folder / "tokenizer_config.json"
        settings: dict[str, Any] = json.loads(configuration.read_text("utf-8")) if configuration.exists() else {}
        source = settings.get("chat_template")
        if isinstance(source, list):  # several named templates
            source = {entry["name"]: entry["template"] for entry in source}.get("default")
        file = folder / "chat_template.jinja"
        self.source: str | None = file.read_text("utf-8") if file.exists() else source
        self.special: dict[str, str] = {}
        for key, value in settings.items():
            text = value.get("content") if isinstance(value, Mapping) else value
            if key.endswith("_token") and isinstance(text, str):
                self.special[key] = text
        self.special_texts = _special_texts(folder, settings) | set(self.special.values())
        self._compiled: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    @property
    def takes_tools(self) -> bool:
        """Whether the template speaks of tools."""
        return self.source is not None and "tools" in self.source

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Render a conversation, ending where the assistant's answer begins.

        Raises:
            MlflowException: the folder has no template, or the template refuses the conversation.
        """
        return self._rendered([self._shaped(message) for message in messages], tools)

    def _rendered(self, shaped: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        if self.source is None:
            raise refusal("messages", "given", "a model with a chat template", "this one has none; send a templated `prompt`")
        import jinja2

        if self._compiled is None:
            self._compiled = _environment().from_string(self.source)
        try:
            return str(
                self._compiled.render(
                    messages=list(shaped),
                    tools=list(tools) or None,
                    documents=None,
                    add_generation_prompt=True,
                    **self.special,
                )
            )
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            # beside its own refusals: what Python raises in a template that looks for what a message does not have
            raise refusal(
                "messages", [message["role"] for message in shaped], f"a conversation the chat template takes ({error})"
            ) from error

    def _shaped(self, message: Mapping[str, Any]) -> dict[str, Any]:
        shaped = _with_arguments(message)
        if shaped["role"] == "developer" and "developer" not in (self.source or ""):
            shaped["role"] = "system"  # OpenAI's newer name for it, which few templates know
        return shaped

    def segments(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[str]:
        """Render with special-token text of messages and tools cut apart.

        The joined segments are the rendered text; encoded one by one, no special-token text that came from a request is whole in any of
        them, so that it can only be read as plain text. Looked at is what the template will see: a tool call's arguments are JSON, in
        which the text may have been written with escapes.
        """
        shaped = [self._shaped(message) for message in messages]
        specials = sorted(filter(None, self.special_texts), key=len, reverse=True)
        if not any(special in text for text in _texts([shaped, list(tools)]) for special in specials):
            return [self._rendered(shaped, tools)]
        mark = str(secrets.randbelow(10**MARK_DIGITS)).zfill(MARK_DIGITS)
        rendered = self._rendered(_marked(shaped, specials, mark), _marked(list(tools), specials, mark))
        return [segment for segment in rendered.split(mark) if segment]


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys too: a template prints the keys of arguments and schemas."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _marked(value: Any, specials: Sequence[str], mark: str) -> Any:
    if isinstance(value, str):
        for special in specials:
            value = value.replace(special, special[:1] + mark + special[1:])
        return value
    if isinstance(value, Mapping):
        return {_marked(key, specials, mark): _marked(item, specials, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item, specials, mark) for item in value]
    return value


def _special_texts(folder: Path, settings: Mapping[str, Any]) -> set[str]:
    """Texts that a tokenizer reads as special tokens; tokens that were only added, such as ``<think>``, may be written by anybody."""
    file = folder / "tokenizer.json"
    added = _added_tokens(file.read_text("utf-8")) if file.exists() else []
    entries = [*added, *settings.get("added_tokens_decoder", {}).values()]
    return {entry["content"] for entry in entries if isinstance(entry, Mapping) and entry.get("content") and entry.get("special", True)}


def _added_tokens(source: str) -> list[Any]:
    """Read ``added_tokens`` of a tokenizer.json without the megabytes of vocabulary around it."""
    key = re.search(r'"added_tokens"\s*:\s*(?=\[)', source)
    found = json.JSONDecoder().raw_decode(source, key.end())[0] if key else json.loads(source).get("added_tokens")
    return list(found or [])


def _with_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """Hand a tool call's arguments to the template as a mapping: templates print them with ``tojson``."""
    shaped = dict(message)
    if "tool_calls" in shaped:
        calls = []
        for call in shaped["tool_calls"]:
            function = dict(call["function"])
            with contextlib.suppress(ValueError):  # the template prints what is no JSON as it is
                function["arguments"] = json.loads(function["arguments"])
            calls.append({**call, "function": function})
        shaped["tool_calls"] = calls
    return shaped


def _environment() -> Any:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    class Generation(Extension):
        """``{% generation %}`` marks what an assistant wrote, for training; here it is only passed through."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
