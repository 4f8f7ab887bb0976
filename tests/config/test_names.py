"""Names of registered models: accepted everywhere or refused everywhere."""

import pytest

from steps.config import names
from steps.config.errors import ConfigError
from steps.pipeline import filters
from steps.pipeline.arguments import translate
from steps.pipeline.compose import compose_config
from steps.pipeline.errors import StepError

GOOD = ["smollm2-135m-instruct", "My Model", "a=b", "A+b_c.d", "ünï 日本", "हिन्दी", "123", "true", "1e3"]
BAD = [
    *("it's", 'q"q', "a`b", "a/b", "a:b", "a@b", "a\\b", "${oc.env:HOME}", "a%b", "a#b", "a?b", "a,b", "a;b", "(a)", "[a]"),
    *("a\nb", "a\u200bb", " a", "a ", ".a", "-a", "", "null", "x" * 201, "u\u0308"),
]


@pytest.mark.parametrize("name", GOOD)
def test_accepted_name_survives_the_command_line_and_the_config(name: str) -> None:
    words = ["--model", "tiny_phi3", "--model.registered_name", name, "--target", f"models:/{name}/2"]
    candidates = f"[{','.join(names.quoted(f'models:/{name}/{number}') for number in (1, 2))}]"
    config = compose_config(list(translate([*words, "--evaluate.candidates", candidates]).overrides))
    assert (config.model.registered_name, config.target) == (name, f"models:/{name}/2")
    assert config.evaluate.candidates == [f"models:/{name}/1", f"models:/{name}/2"]


@pytest.mark.parametrize("name", BAD)
def test_refused_name_is_named_with_what_is_expected(name: str) -> None:
    with pytest.raises(ConfigError, match=r"target=.*: expected .*; rename the registered model"):
        names.check("target", name)


@pytest.mark.parametrize(("name", "of"), [("parrot.history", "history"), ("parrot.approvals", "approvals"), ("Parrot.History", "history")])
def test_names_of_companions_are_reserved(name: str, of: str) -> None:
    with pytest.raises(ConfigError, match=f"which is kept for the {of} of '[pP]arrot'"):
        names.check("target", name)


def test_filter_cannot_be_left_by_a_value() -> None:
    assert filters.equals("name", "my model") == "name = 'my model'"
    assert filters.equals("name", "it's") == 'name = "it\'s"'
    for value in ("both'\"", "line\nbreak", "x' OR name != \""):
        with pytest.raises(StepError, match="MLflow's search cannot name this text"):
            filters.equals("name", value)
