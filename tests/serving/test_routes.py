"""Which version a request goes to."""

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from steps.config.serve import ServeConfig
from steps.core.errors import ConfigError
from steps.serving.deployment import Deployment
from steps.serving.errors import ApiError
from steps.serving.routes import Routes, routes_of


def deployed(routes: Routes, **versions: int) -> Routes:
    """Serve versions under aliases."""
    for route in routes.all:
        number = versions.get(route.alias)
        if number is not None:
            stands = SimpleNamespace(version=SimpleNamespace(name=route.name, number=number))
            route.deployment = cast(Deployment, stands)
    return routes


def asked(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"question {number}"}]}


def test_a_name_an_alias_and_a_version_are_models() -> None:
    routes = deployed(routes_of({"slm": ["champion", "challenger"]}, ServeConfig()),
                      champion=3, challenger=4)  # fmt: skip
    for model, number in (
        (None, 3), ("slm", 3), ("slm@champion", 3), ("slm@challenger", 4), ("slm/4", 4)
    ):  # fmt: skip
        assert routes.choose(model, asked(0)).deployment.version.number == number


@pytest.mark.parametrize("model", ["gpt-4o", "slm@previous", "slm/9", ""])
def test_what_is_not_served_is_a_404_that_says_what_is(model: str) -> None:
    routes = deployed(routes_of({"slm": [None]}, ServeConfig()), champion=3)
    with pytest.raises(ApiError, match="there are: slm, slm@champion") as caught:
        routes.choose(model, asked(0))
    assert (caught.value.status, caught.value.param) == (404, "model")


def test_a_model_that_is_not_a_string_is_a_400() -> None:
    routes = deployed(routes_of({"slm": [None]}, ServeConfig()), champion=3)
    with pytest.raises(ApiError) as caught:
        routes.choose(["slm"], asked(0))
    assert caught.value.status == 400


def test_without_a_model_a_server_of_two_asks_for_one() -> None:
    routes = deployed(routes_of({"a": [None], "b": [None]}, ServeConfig()), champion=3)
    with pytest.raises(ApiError, match="expected one of a, b"):
        routes.choose(None, asked(0))
    assert routes.choose("b", asked(0)).route.name == "b"


def test_a_split_gives_each_alias_its_share_and_a_request_always_the_same_side() -> None:
    config = ServeConfig(split={"champion": 90, "challenger": 10})
    routes = deployed(routes_of({"slm": [None]}, config), champion=3, challenger=4)
    sides = [routes.choose("slm", asked(number)).route.alias for number in range(4000)]
    share = Counter(sides)["challenger"] / len(sides)
    assert 0.08 < share < 0.12  # four standard deviations
    again = [routes.choose("slm", asked(number)).route.alias for number in range(4000)]
    assert again == sides


def test_a_share_of_nothing_gets_nothing() -> None:
    config = ServeConfig(split={"champion": 1, "challenger": 0})
    routes = deployed(routes_of({"slm": [None]}, config), champion=3, challenger=4)
    sides = {routes.choose("slm", asked(number)).route.alias for number in range(500)}
    assert sides == {"champion"}


def test_the_other_side_of_a_split_answers_where_one_serves_nothing() -> None:
    config = ServeConfig(split={"champion": 1, "challenger": 100})
    routes = deployed(routes_of({"slm": [None]}, config), champion=3)
    assert routes.choose("slm", asked(0)).route.alias == "champion"


def test_a_name_beside_its_aliases_is_still_the_champion() -> None:
    routes = routes_of({"slm": ["challenger", None]}, ServeConfig())
    deployed(routes, champion=3, challenger=4)
    assert routes.choose("slm", asked(0)).route.alias == "champion"
    assert routes.choose("slm@challenger", asked(0)).route.alias == "challenger"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (ServeConfig(split={"champion": 95, "challenger": 5}), "serve.split"),
        (ServeConfig(shadow="champion"), "serve.shadow"),
    ],
)
def test_a_split_or_shadow_that_no_model_would_have_is_refused(
    config: ServeConfig, field: str
) -> None:
    with pytest.raises(ConfigError, match=field):
        routes_of({"slm": ["champion"]}, config)


def test_a_shadow_is_asked_too_and_answers_nobody() -> None:
    config = ServeConfig(shadow="challenger")
    routes = deployed(routes_of({"slm": [None]}, config), champion=3, challenger=4)
    choice = routes.choose("slm", asked(0))
    assert choice.deployment.version.number == 3
    assert [one.version.number for one in choice.shadows] == [4]
    with pytest.raises(ApiError):
        routes.choose("slm@challenger", asked(0))


def test_before_anything_is_loaded_a_request_gets_a_503() -> None:
    routes = routes_of({"slm": [None]}, ServeConfig())
    with pytest.raises(ApiError, match="@champion is being loaded") as caught:
        routes.choose("slm", asked(0))
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "5")
