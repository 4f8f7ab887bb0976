"""Hooks of `mkdocs build`: what the site has from outside of docs/, and links that hold on it.

A git host and the site show the same Markdown. On the site README.md is the first page, the
notebook is a page, each decision has its place in the navigation, and a link to another file of the
project leads to a copy of it.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "docs/quickstart.ipynb"
# file of the project to page of the site
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    NOTEBOOK: "quickstart.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
COPIES = "project"  # the site's folder for other files that are linked
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: "MkDocsConfig") -> None:
    """Put every decision into the navigation, at the end of its last section."""
    decisions = sorted(path.name for path in (ROOT / "docs/adr").glob("*.md"))
    assert config.nav is not None
    (last,) = config.nav[-1].values()
    last.append({"Decisions": [f"adr/{name}" for name in decisions]})


def on_files(files: "Files", config: "MkDocsConfig") -> None:
    """Add the pages from outside of docs/, and the files that any page links to."""
    for source, page in PAGES.items():
        content = notebook() if source == NOTEBOOK else (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=content))
    copies: set[str] = set()
    for file in files.documentation_pages():
        source = _source(file.src_uri)
        copies |= {
            target
            for link in LINK.findall(_prose(file.content_string))
            if (target := _target(source, link)) not in PAGES and not target.startswith("docs/")
        }
    for target in sorted(copies):
        if (ROOT / target).is_file():
            path = str(ROOT / target)
            files.append(File.generated(config, f"{COPIES}/{target}", abs_src_path=path))


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Rewrite the links of a page that lead elsewhere on the site than in the project."""
    here, source = page.file.src_uri, _source(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        target = _target(source, found[0])
        inside = target.removeprefix("docs/") if target.startswith("docs/") else None
        there = PAGES.get(target) or inside or f"{COPIES}/{target}"
        return posixpath.relpath(there, posixpath.dirname(here) or ".")

    parts = FENCED.split(markdown)
    return "".join(part if at % 2 else LINK.sub(moved, part) for at, part in enumerate(parts))


def notebook() -> str:
    """The notebook as Markdown; its outputs are not kept, so there are none to show."""
    cells = json.loads((ROOT / NOTEBOOK).read_text("utf-8"))["cells"]
    return "\n\n".join(
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell in cells
        for text in ["".join(cell["source"])]
    )


def _prose(markdown: str) -> str:
    return FENCED.sub("", markdown)


def _source(page: str) -> str:
    """The file of the project that a page was made from."""
    return SOURCES.get(page, f"docs/{page}")


def _target(source: str, link: str) -> str:
    """The file of the project that a link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
