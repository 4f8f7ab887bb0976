"""A child's peak memory is its own: the kernel's ``ru_maxrss`` would be the parent's."""

import subprocess
import sys

from steps.core import peak_rss

PARENT = """
import subprocess, sys
ballast = bytearray(b"x") * 400_000_000
print(subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True, check=True).stdout)
"""  # noqa: E501


def test_child_does_not_inherit_its_parents_peak() -> None:
    file = peak_rss.__file__
    child = f"import runpy; print(runpy.run_path({file!r})['peak_rss']())"
    done = subprocess.run(
        [sys.executable, "-c", PARENT, child],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert 1_000_000 < int(done) < 200_000_000


def test_peak_is_kept_after_the_memory_is_given_back() -> None:
    file = peak_rss.__file__
    code = (
        "import runpy; held = bytearray(b'x') * 300_000_000; del held;"
        f" print(runpy.run_path({file!r})['peak_rss']())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert int(done) > 300_000_000
