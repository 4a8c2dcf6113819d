"""The site builds without a warning, no link in it is broken, and it fetches nothing."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from docs.pages import ROOT, pages


class Page(HTMLParser):
    """The anchors of a page, the targets of its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: set[str] = set()
        self.loads: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.targets.add(found["href"])
        elif tag in ("img", "script", "link", "iframe", "source"):
            self.loads |= {found[name] for name in ("src", "href") if name in found}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings_handlers.python", "jupytext"):
        pytest.importorskip(module, reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_no_link_is_broken_and_nothing_is_fetched(site):
    read = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    assert len(read) > len(pages())
    for path, page in read.items():
        assert not [target for target in page.loads if "://" in target or target.startswith("//")], path
        for target in page.targets | page.loads:
            file, anchor = urldefrag(target)
            if "://" in file or file.startswith(("mailto:", "data:")) or path.name == "404.html":
                continue
            there = (path.parent / unquote(file)).resolve() if file else path
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file(), f"{path.relative_to(site)} -> {target}"
            if anchor and there in read and not anchor.startswith("__"):
                assert unquote(anchor) in read[there].anchors, f"{path.relative_to(site)} -> {target}"


@pytest.mark.slow
def test_every_generated_page_and_tutorial_is_there(site):
    expected = [*pages(), *(f"tutorials/{path.stem}.md" for path in (ROOT / "docs" / "tutorials").glob("*.py"))]
    for place in expected:
        assert (site / place).with_suffix(".html").is_file()
    for path in (ROOT / "docs" / "tutorials").glob("*.py"):
        assert (site / "tutorials" / f"{path.stem}.ipynb").is_file()
