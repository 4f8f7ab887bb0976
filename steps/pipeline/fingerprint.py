"""When two runs of a step would make the same thing."""

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from steps.config.root import Config
from steps.core import digest


@dataclass(frozen=True)
class Fingerprint:
    """Digests of all that a step's output depends on, by name: ``config.model``,
    ``input.snapshot``, ``source``, ``package.torch``.
    """

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        return digest.of_value(dict(self.parts))

    def differs_from(self, other: Mapping[str, str]) -> list[str]:
        """Names of the parts that are not the same in ``other``."""
        names = sorted({*self.parts, *other})
        return [name for name in names if self.parts.get(name) != other.get(name)]


def fingerprint(
    config: Config,
    *,
    reads: tuple[str, ...],
    inputs: Mapping[str, str],
    source: str,
    packages: tuple[str, ...],
) -> Fingerprint:
    """Fingerprint of one step.

    Args:
        config: the composed config.
        reads: dotted config nodes the step reads, such as ``("model", "onnx")``.
        inputs: name of an input to the digest of what it points at.
        source: digest of the step's source closure.
        packages: distributions whose versions count.
    """
    parts = {f"config.{name}": digest.of_value(plain(node(config, name))) for name in reads}
    parts |= {f"input.{name}": value for name, value in inputs.items()}
    parts["source"] = source
    parts |= {f"package.{name}": metadata.version(name) for name in packages}
    return Fingerprint(parts)


def node(config: Config, name: str) -> object:
    """The config node at a dotted name."""
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def plain(value: object) -> object:
    """Dataclasses and enums as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
