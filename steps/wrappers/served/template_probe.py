"""Tries a chat template with texts that are easy to find again, to see what it does with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from .template import DEFAULT, ChatTemplate

SYSTEM, ASKED, SAID, RESULT = "0probesystem0", "0probequestion0", "0probeanswer0", "0proberesult0"
USER = {"role": "user", "content": ASKED}


class TemplateProbe:
    """Renders probes and keeps what came out.

    Args:
        template: is tried.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template
        # texts in which everything but the probes' words is the template's own
        self.seen: list[str] = []

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        *,
        name: str = DEFAULT,
        opening: bool = True,
        keep: bool = True,
    ) -> str | None:
        """What the template makes of messages; None where it refuses them.

        Args:
            messages: as the template reads them.
            variables: what it reads beside them.
            name: of the template.
            opening: end where the assistant's answer begins.
            keep: remember the text; not where the messages hold marks of a format themselves.
        """
        try:
            text = self.template.render(messages, variables, name=name, opening=opening)
        except MlflowException:
            return None
        if keep:
            self.seen.append(text)
        return text

    def holds(self, words: Sequence[str], text: str | None) -> bool:
        """Whether all words arrived in a text."""
        return text is not None and all(word in text for word in words)

    def opening(self, variables: Mapping[str, Any] | None = None) -> str:
        """What the template writes to open the assistant's answer."""
        with_it, without = self.text([USER], variables), self.text([USER], variables, opening=False)
        if with_it is None:
            return ""
        cut = with_it.rfind(ASKED) + len(ASKED)
        if without is not None and with_it.startswith(without):
            return with_it[len(without) :]
        return with_it[cut:]
