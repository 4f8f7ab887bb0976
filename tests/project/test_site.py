"""The site of the documents: built strictly, whole, and asking nothing of the network."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, Shell

# what a browser fetches by itself
FETCHED = re.compile(r"<(?:link|script|img|source|iframe)\b[^>]*?(?:src|href)=\"([^\"]+)\"")


@pytest.fixture(scope="module")
def site(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = ("python", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder))
    away = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = shell(*words, cwd=ROOT, NO_PROXY="", **away)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    for path in ROOT.glob("docs/**/*.md"):
        assert (site / path.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), path
    for page in ("index", "quickstart", "changelog", "contributing", "benchmarks"):
        assert (site / f"{page}.html").is_file(), page


def test_the_first_page_is_readme(site: Path) -> None:
    page = (site / "index.html").read_text("utf-8")
    assert "make run" in page
    assert 'href="server.html"' in page
    assert 'href="quickstart.html"' in page
    assert 'src="report.png"' in page


def test_every_link_leads_somewhere(site: Path) -> None:
    """mkdocs looks at links of Markdown; this at what the pages have."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for link in re.findall(r"(?:href|src)=\"([^\"#?]+)", page.read_text("utf-8")):
            if not re.match(r"\w+:|//", link):
                assert (page.parent / link).exists(), f"{page.relative_to(site)}: {link}"


def test_a_reader_without_network_misses_nothing(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        fetched = FETCHED.findall(page.read_text("utf-8"))
        assert fetched
        assert [link for link in fetched if re.match(r"https?:|//", link)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", style.read_text("utf-8")), style


def test_decisions_are_in_the_navigation(site: Path) -> None:
    page = (site / "index.html").read_text("utf-8")
    for path in ROOT.glob("docs/adr/*.md"):
        assert f'href="adr/{path.stem}.html"' in page, path
