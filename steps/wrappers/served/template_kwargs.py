"""Variables of a request for the chat template, checked against what the template reads."""

import json
from collections.abc import Mapping
from typing import Any

from .invalid_request import checked_texts, invalid_request, require_characters
from .template_capabilities import RESERVED, TemplateCapabilities

KWARGS = "chat_template_kwargs"


def checked_template_kwargs(
    value: Any,
    enable_thinking: Any = None,
    capabilities: TemplateCapabilities | None = None,
    field: str = KWARGS,
) -> dict[str, Any]:
    """Check variables for the template.

    Args:
        value: a mapping of JSON values, or None.
        enable_thinking: short for the template's own switch; None where it is not given.
        capabilities: of the template; None accepts any name.
        field: what the value is called in errors.

    Raises:
        MlflowException: naming the variable, and those that the template reads.
    """
    if value is not None and not isinstance(value, Mapping):
        raise invalid_request(field, value, "a mapping of the chat template's variables")
    given: dict[str, Any] = dict(value or {})
    require_characters(field, checked_texts(field, given))
    read = None if capabilities is None else list(capabilities.variables)
    for name, item in given.items():
        if name in RESERVED or name.endswith("_token"):
            raise invalid_request(
                f"{field}.{name}", item, "another name, as this one is the server's to set"
            )
        if read is not None and name not in read:
            expected = (
                f"one of the names that this model's chat template reads, {read}"
                if read
                else "none, as this template reads none"
            )
            raise invalid_request(f"{field}.{name}", item, expected)
        try:
            json.dumps(item, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise invalid_request(f"{field}.{name}", item, "a JSON value") from error
    if enable_thinking is None:
        return given
    if not isinstance(enable_thinking, bool):
        raise invalid_request("enable_thinking", enable_thinking, "true or false")
    thinking = capabilities.thinking if capabilities else None
    switch = "enable_thinking" if capabilities is None else thinking.switch if thinking else None
    if switch is None:
        expected = "nothing, as this model's chat template has no switch for reasoning"
        raise invalid_request("enable_thinking", enable_thinking, expected, "leave it out")
    if given.setdefault(switch, enable_thinking) != enable_thinking:
        raise invalid_request(
            "enable_thinking",
            enable_thinking,
            f"the same as {field}.{switch}, which is {given[switch]!r}",
            "give one of them",
        )
    return given
