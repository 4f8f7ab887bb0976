"""Which tests share a process where there are several."""

from functools import cached_property

from xdist.scheduler import LoadScopeScheduling

from tests.families.table import families


class ByFileOrFamily(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no type hints
    """A process takes a whole file, or all tests of one model family."""

    @cached_property
    def _families(self) -> list[str]:
        return sorted((family.name for family in families()), key=len, reverse=True)  # one name may begin with another

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        parameters = test.partition("[")[2]
        if file.startswith("tests/families/"):
            return next((f"tests/families [{name}]" for name in self._families if name in parameters), file)
        return file
