"""Words of the command line, as a user or `mlflow run` gives them, to what Hydra takes."""

import pytest

from steps.core.errors import ConfigError
from steps.pipeline.arguments import is_text, translate


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["--model", "", "--overrides", ""], []),
        (["--model", "tiny_phi3"], ["model=tiny_phi3"]),
        (["--overrides", "onnx=fp32_cpu evaluate.seed=1"], ["onnx=fp32_cpu", "evaluate.seed=1"]),
        (["--evaluate.max_new_tokens", "32"], ["evaluate.max_new_tokens=32"]),
        (["evaluate.seed=3", "--model=tiny_phi3"], ["evaluate.seed=3", "model=tiny_phi3"]),
        (["--overrides", "evaluate.pack='my folder'"], ["evaluate.pack=my folder"]),
        (["--evaluate.pack", "/a folder/pack, mine"], [r"evaluate.pack='/a folder/pack, mine'"]),
        (["--model.revision", "12345678901234567890"], ["model.revision='12345678901234567890'"]),
        (["--model.revision", "123e45"], ["model.revision='123e45'"]),
        (["--model.revision", "null"], ["model.revision=null"]),
        (["--report_uri", "runs:/0e1/report.json"], ["report_uri='runs:/0e1/report.json'"]),
        (["--overrides", "~onnx.extra_options"], ["~onnx.extra_options"]),
        (["--overrides", "-m onnx=int4_cpu,fp32_cpu"], ["-m", "onnx=int4_cpu,fp32_cpu"]),
        (["evaluate.seed=1", "--cfg", "job"], ["--cfg", "job", "evaluate.seed=1"]),
        (["-m", "--onnx", "int4_cpu,fp32_cpu"], ["-m", "onnx=int4_cpu,fp32_cpu"]),
    ],
)
def test_translated(words: list[str], expected: list[str]) -> None:
    assert translate(words).for_hydra() == expected


@pytest.mark.parametrize(
    "value", [r"a\b", r"a\\b", "it's", r"it\'s", "end\\", "end\\\\", r"\'", "a,b=[c]", '"', "~/x"]
)
def test_hydra_reads_back_what_was_given(value: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (word,) = translate(["--reason", value]).overrides
    assert OverridesParser.create().parse_override(word).value() == value


@pytest.mark.parametrize(
    "value",
    ["the gate is wrong, see the minutes", "it's 3 % worse, they say", "why (really)?", "plain"],
)
def test_a_sentence_is_one_value_although_it_has_commas(value: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (word,) = translate([f"reason={value}"]).overrides
    override = OverridesParser.create().parse_override(word)
    assert not override.is_sweep_override()
    assert override.value() == value


@pytest.mark.parametrize(
    "word", ["reason='quoted, already'", 'reason="so, too"', "evaluate.pack=core,smoke"]
)
def test_what_is_quoted_or_no_sentence_stays_as_it_was_typed(word: str) -> None:
    assert translate([word]).for_hydra() == [word]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny_phi3"], r"overrides='tiny_phi3': expected key=value"),
        (
            ["-P", "model=tiny_phi3"],
            r"overrides='-P': .*; -P belongs to `mlflow run`: leave it out",
        ),
        (["--model"], r"model='': expected a value after --model"),
        (["--overrides"], r"overrides='': expected a value after --overrides"),
        (["--cfg"], r"cfg='': expected a value after --cfg"),
        (["--overrides", "evaluate.pack='my folder"], "overrides=.*: expected closed quotes"),
    ],
)
def test_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        translate(words)


def test_what_only_asks_to_see_something() -> None:
    assert translate(["--cfg", "job"]).inspecting
    assert translate(["--cfg=job"]).inspecting
    assert translate(["--help"]).inspecting
    assert not translate(["evaluate.seed=1", "-m"]).inspecting


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("model.revision", True),
        ("report_uri", True),
        ("model.allow_patterns", False),
        ("evaluate.seed", False),
        ("onnx.precision", False),
        ("model", False),
        ("no.such.key", False),
    ],
)
def test_text_fields_are_known_from_the_schema(key: str, expected: bool) -> None:
    assert is_text(key) is expected
