"""docs/configuration.md is what the schemas say."""

import shutil
from dataclasses import dataclass, field

import pytest

from steps.config import reference
from steps.config.bounds import at_least, bounded
from steps.config.isolation import Isolation
from steps.config.meanings import comments
from steps.config.reference import nodes, page
from tests.conftest import ROOT

PAGE = (ROOT / reference.PAGE).read_text("utf-8")


@dataclass
class Inner:
    """What lies below.

    And more of it.
    """

    seed: int = bounded(0, at_least(0))


@dataclass
class Sample:
    """A schema."""

    # a heading of several keys

    # more than
    # one line
    path: str | None = None
    # not this
    tokens: int | None = bounded(None, at_least(1))  # but this
    names: list[str] = field(default_factory=lambda: ["a"])  # behind several lines
    isolation: Isolation = Isolation.preferred
    inner: Inner = field(default_factory=Inner)


def test_the_page_is_current() -> None:
    assert page() == PAGE, "run `make reference`"


def test_every_key_is_listed_with_what_it_means() -> None:
    keys = [key for node in nodes() for key in node.keys]
    assert len(keys) > 150
    assert len({key.name for key in keys}) == len(keys)
    assert [key.name for key in keys if not key.meaning] == []
    for name in ("serve.port", "monitor.bands.inter_token", "promotion.gates.absolute.kl_ceiling"):
        assert f"| `{name}` |" in PAGE
    assert "| `evaluate.pack` | `core` |" in PAGE  # as composed; the schema's is smoke


@pytest.mark.parametrize("there", [True, False])
def test_the_users_own_settings_are_not_in_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, there: bool
) -> None:
    conf = tmp_path_factory.mktemp("project") / "conf"
    shutil.copytree(ROOT / "conf", conf, ignore=shutil.ignore_patterns("local"))
    (conf / "local").mkdir()
    if there:  # or an empty folder
        (conf / "local/default.yaml").write_text("# @package _global_\nevaluate: {seed: 77}\n")
    monkeypatch.setattr(reference, "CONF", conf)
    assert page() == PAGE


def test_a_comment_belongs_to_its_field() -> None:
    assert comments(Sample) == {
        "path": "more than one line",
        "tokens": "but this",
        "names": "behind several lines",
        "isolation": "",
        "inner": "",
    }


def test_a_schema_is_walked_downwards() -> None:
    sample, inner = nodes(Sample, "x")
    takes = {key.name: (key.takes, key.default) for key in sample.keys}
    assert takes == {
        "x.path": ("text, or null", None),
        "x.tokens": ("an integer of at least 1, or null", None),
        "x.names": ("a list of text", ["a"]),
        "x.isolation": ("`preferred` or `required`", Isolation.preferred),
    }
    assert (inner.name, inner.purpose) == ("x.inner", "What lies below.")
    assert inner.keys[0].takes == "an integer of at least 0"
