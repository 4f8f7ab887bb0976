"""Names of registered models: accepted everywhere or refused everywhere."""

import pytest

from steps.config import names
from steps.core import search
from steps.core.errors import ConfigError, StepError
from steps.pipeline.arguments import translate
from steps.pipeline.compose import compose_config

GOOD = [
    "smollm2-135m-instruct",
    "My Model",
    "a=b",
    "A+b_c.d",
    "ünï 日本",
    "हिन्दी",
    "123",
    "true",
    "1e3",
]
BAD = [
    *(
        "it's",
        'q"q',
        "a`b",
        "a/b",
        "a:b",
        "a@b",
        "a\\b",
        "${oc.env:HOME}",
        "a%b",
        "a#b",
        "a?b",
        "a,b",
        "a;b",
        "(a)",
        "[a]",
    ),
    *("a\nb", "a\u200bb", " a", "a ", ".a", "-a", "", "null", "x" * 201, "u\u0308"),
]


@pytest.mark.parametrize("name", GOOD)
def test_accepted_name_survives_the_command_line_and_the_config(name: str) -> None:
    words = [
        "--model",
        "tiny_phi3",
        "--model.registered_name",
        name,
        "--target",
        f"models:/{name}/2",
    ]
    candidates = f"[{','.join(names.quoted(f'models:/{name}/{number}') for number in (1, 2))}]"
    config = compose_config(
        list(translate([*words, "--evaluate.candidates", candidates]).overrides)
    )
    assert (config.model.registered_name, config.target) == (name, f"models:/{name}/2")
    assert config.evaluate.candidates == [f"models:/{name}/1", f"models:/{name}/2"]


@pytest.mark.parametrize("name", BAD)
def test_refused_name_is_named_with_what_is_expected(name: str) -> None:
    with pytest.raises(ConfigError, match=r"target=.*: expected .*; rename the registered model"):
        names.check("target", name)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("parrot.history", "history"),
        ("parrot.approvals", "approvals"),
        ("Parrot.History", "history"),
    ],
)
def test_names_of_companions_are_reserved(name: str, of: str) -> None:
    with pytest.raises(ConfigError, match=f"which is kept for the {of} of '[pP]arrot'"):
        names.check("target", name)


def test_filter_cannot_be_left_by_a_value() -> None:
    assert search.equals("name", "my model") == "name = 'my model'"
    assert search.equals("name", "it's") == 'name = "it\'s"'
    for value in ("both'\"", "line\nbreak", "x' OR name != \""):
        with pytest.raises(StepError, match="MLflow's search cannot name this text"):
            search.equals("name", value)


@pytest.mark.parametrize(
    "name", ["1_000", "1e5", "1.50", "3.10", "true", "NULL", "inf", "nan", "007", "plain-name"]
)
def test_a_name_that_hydra_reads_as_a_value_is_quoted(name: str) -> None:
    config = compose_config([f"model.registered_name={names.quoted(name)}"])
    assert config.model.registered_name == name
