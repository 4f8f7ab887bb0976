"""What both variants save: the logged file, its environment, signature and input example."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from steps.wrappers.bundle import bundle
from steps.wrappers.signature import INPUT_EXAMPLE, chat_signature

CODE_FILE = "chat_model.py"  # the logged file, in the logged model's root
CHECKSUMS = "artifacts/checksums.json"


def providing(package: str) -> str:
    """Name the installed distribution of a package that has one for each kind of hardware.

    ``onnxruntime-genai`` is the CPU's; its siblings ``-cuda`` and ``-directml`` bring the same
    module. With several installed the plain name goes first.
    """
    module = package.replace("-", "_")
    names = {name.lower() for name in packages_distributions().get(module, [])}
    return package if package in names or not names else min(names)


def requirements(packages: Sequence[str]) -> list[str]:
    """Pin packages to what is installed, without local build tags such as ``+cpu``."""
    names = [
        providing(package) if package.startswith("onnxruntime") else package for package in packages
    ]
    return [f"{name}=={version(name).split('+')[0]}" for name in names]


def log_flavor(flavor: Any, name: str, tags: Mapping[str, str], metadata: Mapping[str, Any]) -> str:
    """Log a model with one of our flavors in the active run; returns its URI. The name, which lists
    of logged models show, tells its variant.
    """
    from mlflow.models import Model

    info = Model.log(
        artifact_path=None,
        name=name,
        flavor=flavor,
        tags=dict(tags),
        metadata=dict(metadata),
        validate_serving_input=False,
    )
    return str(info.model_uri)


def add_chat_flavor(
    model: Any,
    path: Path,
    *,
    variant: str,
    weights_key: str,
    weights_place: str,
    checksums: Mapping[str, str],
    size: int,
    model_config: Mapping[str, Any],
    pip_requirements: Sequence[str],
) -> None:
    """Give a saved model the ``python_function`` flavor that serves the chat contract from code.

    The weights need not be there yet: the flavor only says where they will be.

    Args:
        model: the ``mlflow.models.Model`` that is being saved; a flavor it already has stays.
        path: folder it is saved in.
        variant: ``onnx`` or ``transformers``.
        weights_key: name of the weights among the artifacts.
        weights_place: their folder inside the logged model.
        checksums: sha256 of every file of the weights.
        size: bytes of the weights.
        model_config: what the logged file's ``Settings`` reads.
        pip_requirements: all that serving needs.
    """
    import mlflow.pyfunc
    import yaml
    from mlflow.models.utils import _save_example
    from mlflow.utils.environment import _process_pip_requirements, _PythonEnv

    (path / "artifacts").mkdir(parents=True, exist_ok=True)
    (path / CODE_FILE).write_text(bundle(variant), "utf-8")
    (path / CHECKSUMS).write_text(json.dumps(dict(checksums), indent=1, sort_keys=True), "utf-8")
    model.signature = chat_signature()
    _save_example(model, INPUT_EXAMPLE, str(path))
    mlflow.pyfunc.add_to_model(
        model,
        loader_module="mlflow.pyfunc.loaders.code_model",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_config=dict(model_config),
        model_code_path=CODE_FILE,
        streamable=True,
        artifacts={
            weights_key: {"path": weights_place, "uri": weights_place},
            "checksums": {"path": CHECKSUMS, "uri": CHECKSUMS},
        },
    )
    model.model_size_bytes = size + sum(
        file.stat().st_size for file in path.rglob("*") if file.is_file()
    )
    conda, pip, _ = _process_pip_requirements(None, list(pip_requirements), None)
    (path / "conda.yaml").write_text(yaml.safe_dump(conda, default_flow_style=False), "utf-8")
    (path / "requirements.txt").write_text("\n".join(pip), "utf-8")
    _PythonEnv.current().to_yaml(str(path / "python_env.yaml"))
    model.save(str(path / "MLmodel"))
