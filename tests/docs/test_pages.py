"""Every chain, gadget, network, recipe, command and module has a page, and what it says comes from the thing itself."""

import ast
import re
from pathlib import Path

import pytest

from docs.pages import PROGRAMS, ROOT, chain_stems, modules, pages, recipe_names, structured, weights_names
from gadgets.gadget import lookup
from gadgets.gadget import names as gadget_names
from mrnets import store

MADE = pages()
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
HAND_WRITTEN = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "docker/**/*.md", "training/*.md", "mrnets/weights/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("chains", chain_stems()),
        ("gadgets", gadget_names()),
        ("networks", store.names()),
        ("recipes", recipe_names()),
        ("weights", weights_names()),
        ("commands", PROGRAMS),
        ("api", modules()),
    ],
)
def test_everything_has_a_page(folder, names):
    assert names
    for name in names:
        text = MADE[f"{folder}/{name}.md"]
        assert name in text.splitlines()[0]
        assert len(text.strip().splitlines()) > 2
        assert folder == "weights" or f"({name}.md)" in MADE[f"{folder}/index.md"]


@pytest.mark.parametrize("name", gadget_names())
def test_the_page_of_a_gadget_has_all_properties(name):
    text = MADE[f"gadgets/{name}.md"]
    for wanted in lookup(name).properties.values():
        assert f"| `{wanted.name}` |" in text
        assert f"`{wanted.default!r}`" in text


@pytest.mark.parametrize("name", store.names())
def test_the_page_of_a_network_has_all_options_and_its_source(name):
    text = MADE[f"networks/{name}.md"]
    assert store.describe(name).paper in text
    assert all(f"| `{option}` | `{default!r}` |" in text for option, default in store.bind(name).items())


@pytest.mark.parametrize("name", recipe_names())
def test_the_page_of_a_recipe_has_all_of_its_file(name):
    file = (ROOT / "training" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    text = MADE[f"recipes/{name}.md"].replace("\\", "")
    assert all(line.removeprefix("#").strip() in text for line in file.splitlines())


def test_the_page_of_a_chain_has_its_file_and_its_weights():
    text = MADE["chains/segment.md"]
    assert (ROOT / "chains" / "segment.xml").read_text(encoding="utf-8").strip() in text
    assert "](../weights/segunet_tissue.md)" in text


def test_links_between_generated_pages_lead_somewhere():
    places = {*MADE, *(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*"))}
    scripts = {f"tutorials/{path.stem}.md" for path in (ROOT / "docs" / "tutorials").glob("*.py")}
    places |= scripts | {"pictures/scale.png"}
    for page, text in MADE.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in LINK.findall(prose):
            if "://" in target or target.startswith("#"):
                continue
            folder = (ROOT / page).parent
            place = (folder / target.partition("#")[0]).resolve().relative_to(ROOT).as_posix()
            assert place in places, f"{page} -> {target}"


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_in_files_of_the_project_lead_somewhere(path):
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in LINK.findall(prose):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        generated = ROOT / "docs" in there.resolve().parents
        site = there.resolve().relative_to(ROOT / "docs").as_posix() if generated else ""
        tutorial = there.with_suffix(".py").exists() and there.parent.name == "tutorials"
        assert there.exists() or site in MADE or tutorial, f"{path.name} -> {target}"
        if anchor and there.suffix == ".md" and there.exists():
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{path.name} -> {target}"


SENTENCES = re.findall(
    r"^\| `([^`]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
)


def texts() -> str:
    """All texts in the project's code, with what is filled in left out."""
    found = []
    for program in PROGRAMS:
        for path in (ROOT / program).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append(
                        "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences_of_the_troubleshooting_page_are_in_the_code(sentence, every_text):
    assert sentence in every_text


@pytest.fixture(scope="module")
def every_text() -> str:
    return texts()


def test_the_readme_says_which_weights_run_in_which_chain():
    rows = re.findall(r"^\| \[(\w+)\]\(mrnets/weights/\1\.md\) \| `(\w+)` \| (.*?) \|", README, re.MULTILINE)
    assert {name for name, _, _ in rows} == set(weights_names())
    for name, network, chains in rows:
        assert store.header(name)["network"] == network
        files = (ROOT / "chains").glob("*.xml")
        named = {path.stem for path in files if f'name="weights" value="{name}"' in path.read_text(encoding="utf-8")}
        assert set(re.findall(r"`(\w+)`", chains)) == named


def test_the_first_screen_of_the_readme_has_a_small_picture_and_a_diagram():
    first = README.splitlines()[:20]
    pictures = re.findall(r"!\[[^\]]+\]\((\S+)\)", "\n".join(first))
    assert {Path(picture).suffix for picture in pictures} == {".png", ".svg"}
    assert all((ROOT / picture).stat().st_size <= 300_000 for picture in pictures)


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("Why:\n- one\n  more\n- two", "Why:\n\n- one\n  more\n- two"),
        ("First line.\nscale: of it. other: too.\nmore.", "First line.  \nscale: of it. other: too.\nmore."),
        ("A line.\nAnother line.", "A line.\nAnother line."),
        ("- one\n- two", "- one\n- two"),
    ],
)
def test_lists_and_arguments_of_docstrings_keep_their_lines(docstring, markdown):
    assert structured(docstring) == markdown
