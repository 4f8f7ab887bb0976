"""Which tests share a process where there are several, and which begin first."""

from functools import cached_property

from xdist.scheduler import LoadScopeScheduling

from tests.families.table import families

# The files that take longest, as `--durations` shows: begun first, so that at the end no process
# waits for one of them
LONGEST = (
    "tests/project/test_fresh_clone.py",
    "tests/project/test_chain.py",
    "tests/registry/test_crash.py",
    "tests/project/test_entry_points.py",
    "tests/project/test_local.py",
    "tests/registry/test_cli.py",
    "tests/server/test_races.py",
    "tests/wrappers/test_conformance.py",
    "tests/project/test_environment.py",
    "tests/wrappers/test_environment.py",
    "tests/project/test_git_uri.py",
    "tests/server/test_outage.py",
    "tests/wrappers/test_soak.py",
    "tests/snapshots/test_crash.py",
)


def longest_first(nodeid: str) -> int:
    """Sort key of a test: the place of its file in ``LONGEST``, or behind all of those."""
    file = nodeid.partition("::")[0]
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


class ByFileOrFamily(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no type hints
    """A process takes a whole file, or all tests of one model family."""

    @cached_property
    def _families(self) -> list[str]:
        # one name may begin with another
        return sorted((family.name for family in families()), key=len, reverse=True)

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        parameters = test.partition("[")[2]
        if file.startswith("tests/families/"):
            return next(
                (f"tests/families [{name}]" for name in self._families if name in parameters), file
            )
        return file
