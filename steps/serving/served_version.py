"""A version of a registered model, as a server knows it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServedVersion:
    """A version of a registered model, as a server knows it.

    Attributes:
        name: of the registered model.
        number: of the version.
        variant: ``transformers`` or ``onnx``; empty where nothing says.
        digest: ``sha256:…`` of its bytes.
        created: seconds since 1970, when it was registered.
        model_id: of the logged model behind it; empty where there is none.
    """

    name: str
    number: int
    variant: str
    digest: str
    created: int = 0
    model_id: str = ""

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"
