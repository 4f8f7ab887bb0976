"""Packs: the shipped ones hold what they promise, a broken one is named with file and line."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from steps.core.errors import ConfigError
from steps.evaluation import packs

GOOD: dict[str, Any] = {
    "id": "one",
    "messages": [{"role": "user", "content": "Hello"}],
    "checks": [{"type": "contains_any", "values": ["hello"]}],
    "tags": ["greeting"],
}
META = 'name: mine\nversion: "1"\nlicence: MIT\ncontamination: none known\n'


def folder(path: Path, *lines: object, meta: str = META) -> Path:
    path.mkdir(exist_ok=True)
    (path / "pack.yaml").write_text(meta)
    (path / "items.jsonl").write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )
    return path


def test_core_is_large_and_broad() -> None:
    core = packs.load("core")
    assert len(core.items) >= 150
    skills = Counter(item.tags[0] for item in core.items)
    assert len(skills) >= 6 and min(skills.values()) >= 15
    assert any(len(item.messages) > 2 for item in core.items)


def test_smoke_is_part_of_core() -> None:
    core, smoke = packs.load("core"), packs.load("smoke")
    assert all(item in core.items for item in smoke.items) and len(smoke.items) < len(core.items)
    assert set(smoke.skills) == set(core.skills)


def test_no_item_holds_on_an_empty_answer() -> None:
    assert [item.id for item in packs.load("core").items if item.score("")[0] == 1] == []


def test_take_keeps_every_skill_and_the_order() -> None:
    core = packs.load("core")
    few = core.take(16)
    assert Counter(item.tags[0] for item in few.items) == dict.fromkeys(core.skills, 2)
    order = [item.id for item in core.items]
    assert [item.id for item in few.items] == sorted(
        (item.id for item in few.items), key=order.index
    )
    assert few.digest != core.digest and core.take(None) is core


def test_take_is_even_over_the_kinds_of_a_skill() -> None:
    core = packs.load("core")
    few = core.take(128)
    assert few == core.take(128) and len(few.items) == 128

    def kinds(pack: packs.Pack) -> Counter[tuple[str, ...]]:
        return Counter(item.tags[:2] for item in pack.items)

    whole, taken = kinds(core), kinds(few)
    skills, kept = (
        Counter(item.tags[0] for item in core.items),
        Counter(item.tags[0] for item in few.items),
    )
    for kind, count in kinds(core).items():  # 8 harmless requests of 20, and so on
        assert abs(taken[kind] - count * kept[kind[0]] / skills[kind[0]]) <= (
            1 if whole[kind] > 2 else 1.5
        ), kind
    assert (
        taken["facts", "culture"]
        and taken["refusals", "harmless"] >= 5
        and taken["arithmetic", "word problem"] >= 5
    )
    assert [len(core.take(count).items) for count in (1, 7, 8, 9, 150, 182, 183, 500)] == [
        1,
        7,
        8,
        9,
        150,
        182,
        183,
        183,
    ]


def test_copies_is_bound_to_the_messages(tmp_path: Path) -> None:
    said = "The old mill burned down last night."
    pack = packs.load(
        str(
            folder(
                tmp_path / "a",
                GOOD
                | {
                    "messages": [{"role": "user", "content": said}],
                    "checks": [{"type": "copies", "max": 0.5}],
                },
            )
        )
    )
    assert (
        pack.items[0].score(said)[0] == 0
        and pack.items[0].score("A fire took the old mill.")[0] == 1
    )


def test_digest_follows_the_items_only(tmp_path: Path) -> None:
    first = packs.load(str(folder(tmp_path / "a", GOOD)))
    second = packs.load(str(folder(tmp_path / "b", GOOD, meta=META.replace("mine", "other"))))
    third = packs.load(str(folder(tmp_path / "c", GOOD | {"max_tokens": 3})))
    assert first.digest == second.digest != third.digest


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", "one JSON object a line"),
        ([1], "a JSON object"),
        (GOOD | {"id": ""}, "non-empty string 'id'"),
        (GOOD, "an id of its own; 'one' is taken"),
        (GOOD | {"id": "two", "colour": 1}, r"unknown: \['colour'\]"),
        (GOOD | {"id": "two", "messages": []}, "at least one message"),
        (GOOD | {"id": "two", "messages": [{"role": "wizard", "content": "x"}]}, "role among"),
        (GOOD | {"id": "two", "messages": [{"role": "user", "content": None}]}, "string content"),
        (
            GOOD | {"id": "two", "messages": [{"role": "assistant", "content": "x"}]},
            "last message of role 'user'",
        ),
        (GOOD | {"id": "two", "checks": []}, "at least one check"),
        (GOOD | {"id": "two", "checks": [{"type": "magic"}]}, "unknown check 'magic'"),
        (GOOD | {"id": "two", "tags": []}, "at least one skill"),
        (GOOD | {"id": "two\ud83d"}, r"half a pair: '\\ud83d'"),
        (GOOD | {"id": "two", "max_tokens": 0}, "'max_tokens' of at least 1"),
        (GOOD | {"id": "two", "max_tokens": True}, "'max_tokens' of at least 1"),
    ],
)
def test_broken_item_is_named_with_file_and_line(tmp_path: Path, line: object, words: str) -> None:
    broken = folder(tmp_path / "pack", GOOD, "", line)
    with pytest.raises(packs.PackError, match=words) as caught:
        packs.load(str(broken))
    assert caught.value.line == 3 and f"{broken / 'items.jsonl'}:3" in str(caught.value)
    assert isinstance(caught.value, ConfigError)


def test_a_file_that_an_editor_of_windows_wrote_is_read(tmp_path: Path) -> None:
    pack = folder(tmp_path / "pack", GOOD)
    for file in pack.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert [item.id for item in packs.load(str(pack)).items] == ["one"]


def test_broken_meta_is_named(tmp_path: Path) -> None:
    with pytest.raises(packs.PackError, match="a value for 'licence'"):
        packs.load(str(folder(tmp_path / "a", GOOD, meta='name: x\nversion: "1"\n')))
    with pytest.raises(packs.PackError, match=r"valid YAML"):
        packs.load(str(folder(tmp_path / "b", GOOD, meta="name: [")))
    with pytest.raises(packs.PackError, match=r"unknown: \['licens'\]; did you mean licence\?"):
        packs.load(str(folder(tmp_path / "d", GOOD, meta=META + "licens: MIT\n")))
    with pytest.raises(packs.PackError, match="it has no 'nowhere'"):
        packs.load(str(folder(tmp_path / "c", meta=META + "subset_of: core\nids: [nowhere]\n")))
    with pytest.raises(packs.PackError, match=r"a shipped pack's name \(core, smoke\)"):
        packs.load("nothing-like-this")


def test_broken_pack_runs_nothing(tmp_path: Path) -> None:
    from steps.evaluation.evaluate import evaluate_models
    from tests.evaluation.settings import config

    broken = folder(tmp_path / "pack", GOOD, "{")
    with pytest.raises(packs.PackError):
        evaluate_models(
            ["models:/m-none"], config(pack=str(broken)), incumbent_uri=None, workdir=tmp_path
        )
    assert not (tmp_path / "logs").exists() and not (tmp_path / "report.json").exists()
