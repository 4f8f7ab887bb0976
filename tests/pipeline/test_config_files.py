"""Files of ``conf/``: every mistake is one line with file, line, key and cure."""

from collections.abc import Callable
from pathlib import Path

import pytest

from steps import check
from steps.config import root
from steps.core.errors import ConfigError
from steps.pipeline import compose, config_file, config_files, explain
from steps.pipeline.compose import compose_config

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file below a copy of ``conf/``, which the project then is composed from."""
    import shutil

    conf = Path(shutil.copytree(root.CONF, tmp_path / "conf"))
    (conf / "local" / "default.yaml").unlink(missing_ok=True)
    for module in (compose, config_files, explain):
        monkeypatch.setattr(module, "CONF", conf)
    monkeypatch.setattr(config_file, "ROOT", tmp_path)
    monkeypatch.setattr(config_files, "LOCAL", conf / "local" / "default.yaml")

    def write_(name: str, content: str | bytes) -> Path:
        path = conf / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_


@pytest.mark.parametrize(
    "content",
    [
        "evaluate: {max_items: 4}\n",
        "# @package _global_\nevaluate: {max_items: 4}\n",
        "defaults:\n  - override /promotion: quality\nevaluate:\n  max_items: 4\n",
    ],
)
def test_a_local_file_needs_no_header(write: Write, content: str) -> None:
    write("local/default.yaml", content)
    config = compose_config([])
    assert config.evaluate.max_items == 4
    assert config.promotion.profile == ("quality" if "quality" in content else "balanced")
    assert compose_config(["evaluate.max_items=9"]).evaluate.max_items == 9


def test_the_example_of_a_local_file_composes(write: Write) -> None:
    example = (root.CONF / "local" / "default.yaml.example").read_text()
    write("local/default.yaml", example)
    assert compose_config([]).evaluate.max_items == 16
    bare = [line.removeprefix("# ") for line in example.splitlines() if not line[:2].strip("# ")]
    assert not [line for line in bare if "\t" in line]


@pytest.mark.parametrize("content", ["", "# nothing yet\n"])
def test_an_empty_local_file_changes_nothing(write: Write, content: str) -> None:
    write("local/default.yaml", content)
    assert compose_config([]) == compose_config([])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "local/default.yaml",
            "evaluate:\n  max_itms: 4\n",
            "conf/local/default.yaml:2: evaluate.max_itms=4: expected a key of the config; did you"
            " mean evaluate.max_items?",
        ),
        (
            "local/default.yaml",
            "max_items: 4\n",
            "conf/local/default.yaml:1: max_items=4: expected a key of the config; did you mean"
            " evaluate.max_items?",
        ),
        (
            "local/default.yaml",
            "evaluate: {max_items: four}\n",
            "conf/local/default.yaml:1: evaluate.max_items='four': expected an integer",
        ),
        (
            "local/default.yaml",
            "evaluate: 4\n",
            "conf/local/default.yaml:1: evaluate=4: expected keys with values; write its keys"
            " below evaluate:",
        ),
        (
            "local/default.yaml",
            "evaluate:\n  max_new_tokens: 0\n",
            "conf/local/default.yaml:2: evaluate.max_new_tokens=0: expected an integer of at least"
            " 1",
        ),
        (
            "local/default.yaml",
            "evaluate:\n\tmax_items: 4\n",
            "conf/local/default.yaml:2: expected spaces, and there is a tab; indent with spaces",
        ),
        (
            "local/default.yaml",
            "- evaluate\n",
            "conf/local/default.yaml:1: expected keys with values, such as `key: value`, not a"
            " list",
        ),
        (
            "local/default.yaml",
            "evaluate: {max_items: 4\nserve: [\n",
            "conf/local/default.yaml:2: expected valid YAML (",
        ),
        (
            "promotion/mine.yaml",
            "weights: {quality: 1\n",
            "conf/promotion/mine.yaml:1: expected valid YAML (expected ',' or '}'",
        ),
        (
            "local/default.yaml",
            b"# ok\nreason: \xff\n",
            "conf/local/default.yaml:2: expected text in UTF-8",
        ),
        (
            "local/default.yaml",
            "evaluate: {seed: 1}\nevaluate: {seed: 2}\n",
            "conf/local/default.yaml:2: expected each key once, and evaluate is there again",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema]\nweights: {qualty: 1.0}\n",
            "conf/promotion/mine.yaml:2: promotion.weights.qualty=1.0: expected a key of the"
            " config; did you mean promotion.weights.quality",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema]\napprovals: -1\n",
            "conf/promotion/mine.yaml:2: promotion.approvals=-1: expected an integer of at least",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema]\nalias: v2\n",
            "conf/promotion/mine.yaml:2: promotion.alias='v2': expected lower-case letters",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema]\npromotion:\n  approvals: 1\n",
            "conf/promotion/mine.yaml:2: promotion.promotion='…': expected a key of the config;"
            " leave promotion: out, as a file of conf/promotion/ has its keys at the top",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema, nope]\n",
            "conf/promotion/mine.yaml:1: promotion='nope': expected one of balanced",
        ),
        (
            "local/default.yaml",
            "defaults:\n  - override /evaluate: smok\n",
            "conf/local/default.yaml:1: evaluate='smok': expected one of default, smoke, standard,"
            " sweep; did you mean smoke?",
        ),
        (
            "promotion/mine.yaml",
            "",
            "conf/promotion/mine.yaml: expected keys, and the file is empty; begin with",
        ),
        (
            "promotion/mine.yaml",
            "# @package promotoin\nalias: x\n",
            "conf/promotion/mine.yaml:1: expected a package of the config, not promotoin",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema]\nalias:\n",
            "conf/promotion/mine.yaml:2: promotion.alias=None: expected a value, as `alias:` alone"
            " is null",
        ),
        (
            "promotion/mine.yaml",
            "# nothing yet\n",
            "conf/promotion/mine.yaml: expected keys, and the file is empty; begin with",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema]\nprotected: {champion: [5]}\n",
            "conf/promotion/mine.yaml:2: promotion.protected={'champion': [5]}: expected text in"
            " quotes",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema]\napprovers: rosa\n",
            "conf/promotion/mine.yaml:2: promotion.approvers='rosa': expected a list, such as",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema]\nalias: ${nowhere}\n",
            "conf/promotion/mine.yaml:2: promotion.alias='${nowhere}': expected an interpolation"
            " that can be resolved",
        ),
        (
            "promotion/mine.yaml",
            "defaults:\nalias: x\n",
            "conf/promotion/mine.yaml:1: defaults=None: expected a list",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [mine]\nalias: x\n",
            "conf/promotion/mine.yaml:1: defaults=['mine']: expected files that do not lead back",
        ),
        (
            "promotion/mine.yaml",
            "defaults: [schema, {/evaluate: smoke}]\nalias: x\n",
            "conf/promotion/mine.yaml:1: defaults={'/evaluate': 'smoke'}: expected `override /`",
        ),
        (
            "local/default.yaml",
            "promotion: quality\n",
            "conf/local/default.yaml:1: promotion='quality': expected keys with values; choose its"
            " file under defaults: `- override /promotion: quality`",
        ),
        (
            "local/default.yml",
            "evaluate: {max_items: 4}\n",
            "conf/local/default.yml: expected a file named default.yaml",
        ),
        (
            "local/default.yaml/x",
            "",
            "conf/local/default.yaml: expected a file, not a folder",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line(
    write: Write, name: str, content: str | bytes, said: str
) -> None:
    write(name, content)
    words = ["promotion=mine"] if name.startswith("promotion") else []
    with pytest.raises(ConfigError) as caught:
        compose_config(words)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_word_of_the_command_line_is_not_blamed_on_a_file(write: Write) -> None:
    write("local/default.yaml", "evaluate: {max_new_tokens: 8}\n")
    with pytest.raises(ConfigError, match=r"^evaluate\.max_new_tokens=0: expected") as caught:
        compose_config(["evaluate.max_new_tokens=0"])
    assert "local" not in str(caught.value)


def test_all_faults_of_a_file_are_found_at_once(write: Write) -> None:
    path = write(
        "promotion/mine.yaml", "defaults: [schema]\naproval: 1\napprovals: x\nweights: 3\n"
    )
    assert [fault.line for fault in config_files.faults(path, "promotion")] == [2, 3, 4]


def test_what_the_schema_says_of_the_keys_is_found_with_the_others(write: Write) -> None:
    content = "defaults: [schema]\nalias: v2\nprotected: {V: [rosa]}\napprovls: 1\n"
    path = write("promotion/mine.yaml", content)
    found: list[ConfigError] = [*config_files.faults(path, "promotion")]
    found += config_files.whole(path, "promotion", [fault.field for fault in found])
    assert [str(fault).partition("=")[0] for fault in found] == [
        "conf/promotion/mine.yaml:4: promotion.approvls",
        "conf/promotion/mine.yaml:2: promotion.alias",
        "conf/promotion/mine.yaml:3: promotion.protected",
    ]


def test_a_key_that_leads_nowhere_is_a_fault_of_its_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("promotion/mine.yaml", "defaults: [schema]\nalias: ${nowhere}\n")
    monkeypatch.setattr(check, "CONF", path.parent.parent)
    _, faults = check.check([str(path)])
    assert len(faults) == 1
    assert faults[0].startswith("conf/promotion/mine.yaml:2: promotion.alias='${nowhere}'")


def test_the_keys_of_the_local_file_are_known(write: Write) -> None:
    assert config_files.local_keys() == []
    write("local/default.yaml", "defaults: []\nevaluate: {max_items: 4}\nsigning_key: x\n")
    assert config_files.local_keys() == ["evaluate.max_items", "signing_key"]


def test_every_shipped_file_is_without_fault() -> None:
    found = [
        fault
        for group in root.GROUPS
        for path in (root.CONF / group).glob("*.yaml")
        for fault in config_files.faults(path, group)
    ]
    assert found == []
