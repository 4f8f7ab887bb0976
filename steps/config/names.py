"""One rule for the names of registered models, the same for every command.

MLflow takes nearly any text as a name. Some of it cannot be carried by what this project writes a
name into: model URIs (``models:/<name>@<alias>``), Hydra overrides, search filters and shell
commands. Such a name is refused at the first command that meets it, and by every other command
alike.
"""

import re
import unicodedata

from steps.core.errors import ConfigError

PUNCTUATION = " ._-+="  # accepted besides letters and digits of any script
LONGEST = 200  # characters; MLflow's column holds 256, and the names of the companions are longer
HISTORY_SUFFIX, APPROVALS_SUFFIX = ".history", ".approvals"
# registered models that this project keeps beside another
COMPANIONS = {HISTORY_SUFFIX: "history", APPROVALS_SUFFIX: "approvals"}
PLAIN = re.compile(r"[A-Za-z0-9./:@_-]+")
# what Hydra reads as something else than text: numbers begin with a digit
VALUE = re.compile(r"(?i)[-+]?[0-9].*|true|false|null|[-+]?inf|nan")
EXPECTED = (
    f"letters and digits of any case and script, spaces and any of {' '.join(PUNCTUATION.strip())},"
    f" beginning with a letter or a digit and not ending with a space, at most {LONGEST}"
    " characters, and not the word null"
)
CURE = "rename the registered model: MlflowClient().rename_registered_model(old, new)"


def fault(name: str) -> str | None:
    """Why a text is not a name that every command accepts, as what was expected instead; None where
    it is one.
    """
    if (
        name == "null"
        or not name
        or not name[0].isalnum()
        or name.endswith(" ")
        or len(name) > LONGEST
    ):
        return EXPECTED
    if not all(
        letter.isalnum() or letter in PUNCTUATION for letter in name.translate(_MARKS_AS_LETTERS)
    ):
        return EXPECTED
    if unicodedata.normalize("NFC", name) != name:
        return (
            "a name in Unicode's composed form (NFC), since two spellings that look the same would"
            " be two models"
        )
    if suffix := reserved(name):
        return (
            f"a name that does not end with {suffix}, which is kept for the {COMPANIONS[suffix]} of"
            f" {name[: -len(suffix)]!r}"
        )
    return None


def reserved(name: str) -> str | None:
    """The suffix of a companion, where the name has one in any case; None otherwise."""
    return next((suffix for suffix in COMPANIONS if name.lower().endswith(suffix)), None)


def check(field: str, name: str, cure: str | None = None) -> str:
    """The name, if every command accepts it.

    Args:
        field: config key, or the place, that the name was found in.
        name: of a registered model.
        cure: what mends it, where it is not a rename.

    Raises:
        ConfigError: it is not such a name; says what is.
    """
    if expected := fault(name):
        raise ConfigError(field, name, expected, cure or CURE)
    return name


def quoted(uri: str) -> str:
    """A model name or URI as a value in Hydra's override grammar, which takes only plain ASCII
    words bare, and reads some of them as numbers, booleans or null.
    """
    return uri if PLAIN.fullmatch(uri) and not VALUE.fullmatch(uri) else f"'{uri}'"


class _Marks(dict[int, str]):
    """Combining marks as letters: scripts such as Devanagari write vowels with them."""

    def __missing__(self, code: int) -> str:
        self[code] = "a" if unicodedata.category(chr(code)) in ("Mn", "Mc") else chr(code)
        return self[code]


_MARKS_AS_LETTERS = _Marks()
