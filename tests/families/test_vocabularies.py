"""The published tokenizers, before they are cut down, beside transformers."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from steps.wrappers.served.tokenizer import CheckpointTokenizer
from tests.families.fuzz import texts
from tests.families.table import Family, families
from tests.families.vocabularies import Vocabularies
from tests.families.weights import described, write_tokenizer


def whole() -> list[Any]:
    """A family for each tokenizer and way of naming its tokens."""
    first = {(family.vocabulary, tuple(family.renamed)): family for family in reversed(families())}
    return [
        pytest.param(family, id=family.name, marks=[pytest.mark.slow] if family.slow else [])
        for family in first.values()
    ]


@pytest.mark.parametrize("family", whole())
def test_whole(family: Family, vocabularies: Vocabularies, tmp_path: Path) -> None:
    """What serves, read from what `AutoTokenizer` saves as building does, gives the ids and the
    text of the published files.
    """
    from transformers import AutoTokenizer

    published, saved = tmp_path / "published", tmp_path / "saved"
    published.mkdir()
    write_tokenizer(published, *described(family, vocabularies))
    (published / "config.json").write_text(json.dumps(family.whole_config), "utf-8")
    reference = AutoTokenizer.from_pretrained(published, local_files_only=True)
    reference.save_pretrained(saved)
    served, dice = CheckpointTokenizer.of_folder(saved), random.Random(13)
    for text in ["x" * 1000, " " * 300, *texts(seed=14, count=600)]:
        assert served.encode(text) == reference.encode(text, add_special_tokens=False), repr(text)
    for number in range(150):
        ids = [dice.randrange(len(reference)) for _ in range(1 + number)]
        decode = served.decoder()
        assert "".join(decode(token) for token in ids) + decode.finish() == reference.decode(
            ids, skip_special_tokens=True
        ), ids
