"""A loaded model in other processes, and what its folder must hold to be loaded."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from tests.wrappers.subjects import Folders, Logged, Open
from tests.wrappers.test_logging import folder_of

SENT = """
import multiprocessing, pickle, sys
import mlflow

def answers(model):
    return model.predict({"prompt": "One, two,", "max_tokens": 4})

def inner(model):
    return model.predict(None, {"prompt": "One, two,", "max_tokens": 4})

if __name__ == "__main__":
    import cloudpickle
    from joblib import Parallel, delayed

    model = mlflow.pyfunc.load_model(sys.argv[1], model_config={"max_new_tokens": 7})
    expected = answers(model)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(answers, (model,)) == expected
        assert pool.apply(inner, (model.unwrap_python_model(),)) == expected
    assert Parallel(n_jobs=2, backend="loky")([delayed(answers)(model)] * 2) == [expected] * 2
    for module in (pickle, cloudpickle):
        copy = pickle.loads(module.dumps(model)).unwrap_python_model()
        assert copy.settings.max_new_tokens == 7
        assert inner(copy) == expected
    print(expected[0])
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", ["int4", "transformers"])
def test_a_loaded_model_is_pickled_to_other_processes(
    logged: Logged, in_fresh_process: Callable[..., str], variant: str
) -> None:
    assert in_fresh_process(SENT, logged.uris[variant]).strip()


def test_a_model_without_its_files_says_what_to_do_instead(
    tiny: Folders, open_onnx: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(tiny.onnx("fp32"), folder)
    model = open_onnx(folder)
    pickled = pickle.dumps(model)
    shutil.rmtree(folder)
    with pytest.raises(MlflowException, match=rf"{folder} is not there; pass its URI instead"):
        pickle.loads(pickled)
    with pytest.raises(MlflowException, match=rf"{folder} is not there; pass its URI instead"):
        pickle.dumps(model)


@pytest.fixture
def copied(logged: Logged, tmp_path: Path) -> Path:
    """The folder of a logged model, its own to damage: links to the same bytes."""
    shutil.copytree(folder_of(logged, "int4"), tmp_path / "copied", copy_function=os.link)
    return tmp_path / "copied"


def load(folder: Path, **config: Any) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(str(folder), model_config=config).unwrap_python_model()


GARBLED = {
    "{": "is not JSON",
    "[]": "does not hold the sha256 of files by name",
    "{}": "does not hold the sha256 of files by name",
    '{"model.onnx": 3}': r"holds model\.onnx=3, not a file of the model with its sha256",
    json.dumps({"../x": "a" * 64}): r"holds \.\./x='aaa",
}


@pytest.mark.parametrize("text", GARBLED)
def test_garbled_checksums_are_named(copied: Path, text: str) -> None:
    file = copied / "artifacts" / "checksums.json"
    file.unlink()
    file.write_text(text)
    with pytest.raises(MlflowException, match=rf"damaged model: checksums\.json {GARBLED[text]}"):
        load(copied)


def test_lost_checksums_are_named_and_may_be_done_without(copied: Path) -> None:
    (copied / "artifacts" / "checksums.json").unlink()
    with pytest.raises(
        MlflowException,
        match=r"damaged model: checksums\.json cannot be read \(No such file.*verify_checksums",
    ):
        load(copied)
    model = load(copied, verify_checksums=False)
    assert model.predict(None, {"prompt": "One, two,", "max_tokens": 2})
    model.close()


@pytest.mark.parametrize("verified", [True, False])
def test_weights_that_are_links_out_of_the_folder_are_refused(
    copied: Path, tmp_path: Path, verified: bool
) -> None:
    """As a candidate's are by evaluation and canary (docs/security.md)."""
    file = copied / "artifacts" / "onnx-model" / "model.onnx.data"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        MlflowException,
        match=r"damaged model: model\.onnx\.data is a link out of the model's folder, to .*where",
    ):
        load(copied, verify_checksums=verified)
    file.unlink()
    file.symlink_to(tmp_path / "nowhere")
    with pytest.raises(MlflowException, match=r"model\.onnx\.data is a link to a folder or to not"):
        load(copied, verify_checksums=verified)


def test_links_within_the_folder_are_its_own(copied: Path) -> None:
    file = copied / "artifacts" / "onnx-model" / "chat_template.jinja"
    file.rename(copied / "template")
    file.symlink_to(os.path.relpath(copied / "template", file.parent))
    model = load(copied)
    assert model.predict(None, {"prompt": "One, two,", "max_tokens": 2})
    model.close()
