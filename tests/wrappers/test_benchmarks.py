"""What a call of the benchmarks leaves of an earlier one."""

import json
from pathlib import Path

from benchmarks.run import write_results


def test_a_call_for_one_line_keeps_what_is_known_of_the_others(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_results(
        file,
        [{"name": "decode", "ratio": 1}, {"name": "peer", "ratio": 1}],
        {"llama_cpp": "it is not installed"},
    )
    write_results(file, [{"name": "decode", "ratio": 2}], {})
    assert json.loads(file.read_text()) == {
        "lines": [{"name": "peer", "ratio": 1}, {"name": "decode", "ratio": 2}],
        "left_out": {"llama_cpp": "it is not installed"},
    }
    write_results(
        file, [], {"decode": "it is not installed"}
    )  # its figures were measured all the same
    assert [line["name"] for line in json.loads(file.read_text())["lines"]] == ["peer", "decode"]
    write_results(file, [{"name": "llama_cpp", "ratio": 3}], {})
    assert json.loads(file.read_text())["left_out"] == {}
