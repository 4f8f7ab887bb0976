"""What logging writes, costs and refuses; and that what was logged lives on its own."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steps.config.generation import GenerationConfig
from steps.config.onnx import ServingConfig
from steps.core import files
from steps.core.files import require_space
from steps.wrappers import flavor
from steps.wrappers.bundle import PARTS, SERVED, bundle
from steps.wrappers.log_onnx import log_onnx
from steps.wrappers.log_transformers import log_transformers
from steps.wrappers.served.request import KEYS
from steps.wrappers.signature import chat_signature
from steps.wrappers.weights import Weights, deliver
from tests.wrappers.subjects import NAME, Folders, Logged

VARIANTS = ["int4", "transformers"]


def folder_of(logged: Logged, variant: str) -> Path:
    import mlflow

    mlflow.set_tracking_uri(logged.tracking_uri)
    location = (
        mlflow.MlflowClient()
        .get_logged_model(logged.uris[variant].removeprefix("models:/"))
        .artifact_location
    )
    return Path(location)


@pytest.mark.parametrize("variant", sorted(PARTS))
def test_the_logged_file_stands_alone(variant: str) -> None:
    source = bundle(variant)
    compile(source, variant, "exec")
    assert "from ." not in source
    assert "steps" not in "".join(line for line in source.splitlines() if "import" in line)
    assert source.rstrip().splitlines()[-1].startswith("mlflow.models.set_model(")
    assert ("import torch" in source) == (variant == "transformers")


@pytest.mark.parametrize(
    ("second", "clash"),
    [
        ("LIMIT: int = 2", True),
        ("import json as LIMIT", True),
        ("from json import loads as LIMIT", True),
        ("import os", False),
    ],
)
def test_names_of_two_parts_do_not_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, clash: bool
) -> None:
    from steps.wrappers import bundle as joined

    (tmp_path / "first.py").write_text('"""One."""\nimport os\n\nLIMIT: int = 1\n')
    (tmp_path / "second.py").write_text(f'"""Two."""\n{second}\n')
    monkeypatch.setattr(joined, "SERVED", tmp_path)
    monkeypatch.setattr(joined, "PARTS", {"x": ("first", "second")})
    if clash:
        with pytest.raises(
            ValueError, match=r"served/second\.py defines LIMIT, as served/first\.py does"
        ):
            joined.bundle("x")
    else:
        assert "LIMIT: int = 1" in joined.bundle("x")


def test_every_setting_is_a_column_and_only_numbers_are_params() -> None:
    signature = chat_signature()
    assert {column.name for column in signature.inputs} == KEYS
    assert {param.name for param in signature.params} < KEYS - {"stop"}


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (["onnxruntime-genai-cuda"], "onnxruntime-genai-cuda"),
        (["onnxruntime-genai-cuda", "onnxruntime-genai"], "onnxruntime-genai"),
        ([], "onnxruntime-genai"),
    ],
)
def test_the_build_that_is_installed_is_required(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], expected: str
) -> None:
    monkeypatch.setattr(flavor, "packages_distributions", lambda: {"onnxruntime_genai": installed})
    monkeypatch.setattr(flavor, "version", lambda name: {expected: "1.2.3+gpu"}[name])
    assert flavor.requirements(["onnxruntime-genai"]) == [f"{expected}==1.2.3"]


def test_every_served_file_is_in_a_bundle() -> None:
    parts = {part for parts in PARTS.values() for part in parts}
    assert parts == {file.stem for file in SERVED.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written(logged: Logged, variant: str) -> None:
    import mlflow
    import yaml

    folder = folder_of(logged, variant)
    meta = yaml.safe_load((folder / "MLmodel").read_text())
    config = meta["flavors"]["python_function"]["config"]
    assert config["name"] == NAME
    assert config["max_new_tokens"] == 256
    assert config["max_batch_size"] == 8
    assert "max_length" not in config
    requirements = (folder / "requirements.txt").read_text()
    assert all("==" in line and "+" not in line for line in requirements.split())
    assert ("torch" in requirements) == (variant == "transformers")
    assert "llguidance==" in requirements
    assert ("transformers" in requirements) == (variant == "transformers")
    assert json.loads((folder / "input_example.json").read_text())["messages"]
    tags = (
        mlflow.MlflowClient().get_logged_model(logged.uris[variant].removeprefix("models:/")).tags
    )
    assert tags["slm.variant"] in ("onnx", "transformers")
    texts = [
        file.read_text()
        for file in folder.rglob("*")
        if file.suffix in (".txt", ".yaml", ".md", ".py") or file.name == "MLmodel"
    ]
    assert not any("/tmp/tmp" in text for text in texts)
    assert not list(folder.rglob("*.pkl"))


def test_the_transformers_flavor_is_still_there(logged: Logged) -> None:
    import mlflow.transformers
    import yaml

    folder = folder_of(logged, "transformers")
    meta = yaml.safe_load((folder / "MLmodel").read_text())
    assert meta["metadata"]["task"] == "llm/v1/chat"
    written = meta["flavors"]["transformers"]
    assert (written["inference_task"], written["source_model_name"]) == ("llm/v1/chat", NAME)
    pipeline = mlflow.transformers.load_model(logged.uris["transformers"])
    assert pipeline.tokenizer.decode(pipeline.tokenizer.encode("Hello")) == "Hello"


def test_both_variants_have_one_signature(logged: Logged) -> None:
    import yaml

    signatures = [
        yaml.safe_load((folder_of(logged, variant) / "MLmodel").read_text())["signature"]
        for variant in ("int4", "transformers")
    ]
    assert signatures[0] == signatures[1]
    columns = {column["name"]: column for column in json.loads(signatures[0]["inputs"])}
    assert {
        "messages",
        "prompt",
        "temperature",
        "max_tokens",
        "stop",
        "n",
        "top_p",
        "top_k",
        "tools",
        "response_format",
    } <= set(columns)
    assert not any(column["required"] for column in columns.values())


@pytest.mark.parametrize(
    ("variant", "place"), [("int4", "artifacts/onnx-model"), ("transformers", "model")]
)
def test_weights_are_linked_not_copied(
    logged: Logged, smollm: Folders, variant: str, place: str
) -> None:
    source = smollm.checkpoint if variant == "transformers" else smollm.onnx(variant)
    big = max(source.rglob("*"), key=lambda file: file.stat().st_size)
    assert (folder_of(logged, variant) / place / big.name).samefile(big.resolve())


def test_no_checkpoint_and_no_build_are_named(tmp_path: Path) -> None:
    common: dict[str, Any] = {
        "name": NAME,
        "generation": GenerationConfig(),
        "tags": {},
        "metadata": {},
    }
    with pytest.raises(FileNotFoundError, match=r"config\.json: expected a checkpoint"):
        log_transformers(tmp_path, **common)
    with pytest.raises(FileNotFoundError, match=r"genai_config\.json: expected a folder built"):
        log_onnx(tmp_path, artifact_key="onnx-model", serving=ServingConfig(), **common)


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"needs 1,000,000,000,000 MB at .* MB are free"):
        require_space(10**18, tmp_path / "not" / "yet", "logging the model")


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS])
def test_weights_are_copied_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "weights").write_bytes(b"123")

    (source / "more").write_bytes(b"4567")

    def refuse(*_: object) -> None:
        raise OSError(number, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    asked: list[int] = []
    monkeypatch.setattr(files, "require_space", lambda needed, *_: asked.append(needed))
    assert deliver(Weights.all_in(source, "place"), str(tmp_path / "artifacts")) == "copied"
    assert (tmp_path / "artifacts" / "place" / "deep" / "weights").read_bytes() == b"123"
    assert asked == [7]  # of all that is copied, before the first


PEAK = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import mlflow
from steps.config.generation import GenerationConfig
from steps.config.onnx import ServingConfig
from steps.core.peak_rss import peak_rss
from steps.wrappers.log_onnx import log_onnx
from steps.wrappers.log_transformers import log_transformers
experiment = mlflow.create_experiment(sys.argv[1] + "-peak", artifact_location=sys.argv[3])
mlflow.set_experiment(experiment_id=experiment)
common = dict(name="x", generation=GenerationConfig(), tags={{}}, metadata={{}})
with mlflow.start_run():
    if sys.argv[1] == "transformers":
        log_transformers(Path(sys.argv[2]), **common)
    else:
        log_onnx(Path(sys.argv[2]), artifact_key="onnx-model", serving=ServingConfig(), **common)
print(peak_rss())
"""


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["int4", "fp32", "transformers"])
def test_logging_stays_below_its_memory(
    smollm: Folders, in_fresh_process: Callable[..., str], tmp_path: Path, variant: str
) -> None:
    from steps.config.root import ROOT

    source = smollm.checkpoint if variant == "transformers" else smollm.onnx(variant)
    peak = in_fresh_process(
        PEAK.format(root=str(ROOT)), variant, str(source), str(tmp_path / "artifacts")
    )
    assert int(peak.split()[-1]) < 1.2e9


TWO = """
import sys, mlflow
models = [mlflow.pyfunc.load_model(uri) for uri in sys.argv[1:]]
for model in models:
    print(model.predict({"prompt": "The capital of France is", "max_tokens": 3}))
import os
assert not {"steps", "torch", "transformers"} & sys.modules.keys(), "too much was imported"
print("clean")
"""


def test_two_versions_live_in_one_process_and_leave_it_cleanly(
    logged: Logged, in_fresh_process: Callable[..., str]
) -> None:
    printed = in_fresh_process(TWO, logged.uris["int4"], logged.uris["int8"])
    assert printed.split("\n")[-2] == "clean"
