"""Pages that are made from the project itself: chains, gadgets, networks, weights, recipes, commands and modules.

Nothing of them is written by hand. Their sources are comments, signatures, docstrings, TRAITS, model cards and helps.
`docs/hook.py` hands them to mkdocs.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

from gadgets.chain import Stage
from gadgets.gadget import lookup
from gadgets.gadget import names as gadget_names
from gadgets.hosts import library
from gadgets.hosts.fitting import names as chain_names
from mrnets import store
from mrnets.errors import InputError
from mrnets.traits import Traits

__all__ = ["PROGRAMS", "ROOT", "chain_stems", "modules", "pages", "recipe_names", "structured", "weights_names"]

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WEIGHTS = ROOT / "mrnets" / "weights"
RECIPES = ROOT / "training" / "recipes"
PROGRAMS = ("gadgets", "mrnets", "training")
HAND_WRITTEN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docker/README.md": "docker.md",
    "docker/openrecon/README.md": "openrecon.md",
    "docs/example_package/README.md": "example_package.md",
    "training/README.md": "training.md",
    "training/FEATURES.md": "features.md",
    "tests/benchmarks/README.md": "benchmarks.md",
}
"""Files of the project that are pages as they are, by their places in the site."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_COMMENT = re.compile(r"<!--\n?(.*?)-->", re.DOTALL)
_ITEM = re.compile(r"\s*- ")
_ARGUMENT = re.compile(r"`?[A-Za-z_]\w*`?(, `?\w+`?)*: ")
_COLUMNS = "100"
"""Width of a command's help, which argparse takes from the terminal."""


def pages() -> dict[str, str]:
    """Return the text of each page by its path in the site."""
    made: dict[str, str] = {}
    for folder, title, names, page in _FAMILIES:
        members = {name: page(name) for name in names()}
        made |= {f"{folder}/{name}.md": text for name, text in members.items()}
        made[f"{folder}/index.md"] = _listed(title, members)
    made |= {place: _relinked(Path(file)) for file, place in HAND_WRITTEN.items() if (ROOT / file).is_file()}
    for path in (*DOCS.glob("*.md"), *(DOCS / "tutorials").glob("*.md")):
        made[path.relative_to(DOCS).as_posix()] = _relinked(path, len(path.relative_to(DOCS).parts) - 1)
    return made | {f"weights/{name}.md": _relinked(WEIGHTS / f"{name}.md", 1) for name in weights_names()}


def chain_stems() -> list[str]:
    """Return the names of the chains that ship, without .xml."""
    return [name.removesuffix(".xml") for name in chain_names()]


def recipe_names() -> list[str]:
    """Return the names of the recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def weights_names() -> list[str]:
    """Return the names of the weights that ship."""
    return sorted(path.stem for path in WEIGHTS.glob("*.md"))


def modules() -> list[str]:
    """Return the dotted names of all public modules."""
    files = [path.relative_to(ROOT) for program in PROGRAMS for path in (ROOT / program).rglob("*.py")]
    dotted = {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}
    return sorted(name for name in dotted if not any(part.startswith("_") for part in name.split(".")))


def _chain(name: str) -> str:
    """Return the page of a chain: its comment, its gadgets, its text."""
    text = library.find(name)[0].decode()
    comment = _COMMENT.search(text)
    about, _, usage = inspect.cleandoc("\n" + comment[1] if comment else "").partition("\n\n")
    rows = [(f"[{stage.name}](../gadgets/{stage.name}.md)", _given(stage)) for stage in _stages(name)]
    there = _table(("gadget", "properties that the chain sets"), rows) if rows else "Gadgetron's own, and some of ours."
    parts = [f"# {name}.xml", _escaped(about), "## Gadgets", there]
    if usage:
        parts += ["## How to run it", _code(usage)]
    return _joined(*parts, "## File", _code(text, "xml"))


def _stages(name: str) -> Sequence[Stage]:
    """Return the gadgets of a chain; none for a chain that only a Gadgetron server can run."""
    try:
        return library.load(name).stages
    except InputError:
        return ()


def _given(stage: Stage) -> str:
    """Return the properties that a chain sets, weights with a link to their card."""
    shown = []
    for name, value in stage.properties.items():
        card = f"[{value}](../weights/{value}.md)" if name == "weights" and value in weights_names() else None
        network = f"[{value}](../networks/{value}.md)" if name == "name" and value in store.names() else None
        shown.append(f"{name}: {card or network or _escaped(value)}")
    return ", ".join(shown) or "none"


def _gadget(name: str) -> str:
    """Return the page of a gadget: its docstring, its properties, the chains that name it."""
    gadget = lookup(name)
    missing = inspect.Parameter.empty
    rows = [
        (f"`{wanted.name}`", _escaped(str(wanted)), "needed" if wanted.default is missing else f"`{wanted.default!r}`")
        for wanted in gadget.properties.values()
    ]
    users = [chain for chain in chain_stems() if any(stage.name == name for stage in _stages(chain))]
    takes = f"Takes {' or '.join(gadget.takes)}; gives {gadget.gives}." if gadget.gives else ""
    return _joined(
        f"# {name}",
        structured(_escaped(inspect.cleandoc(gadget.__doc__ or ""))),
        takes,
        "## Properties",
        _table(("property", "values", "default"), rows) if rows else "It has none.",
        "## Chains",
        ", ".join(f"[{chain}](../chains/{chain}.md)" for chain in users) or "No chain that ships names it.",
    )


def _network(name: str) -> str:
    """Return the page of a network: what it declares, its options, its weights, its class."""
    traits = store.describe(name)
    options = [(f"`{key}`", f"`{default!r}`") for key, default in store.bind(name).items()]
    weights = [card for card in weights_names() if store.header(card)["network"] == name]
    return _joined(
        f"# {name}",
        f"{traits.title[0].upper()}{traits.title[1:]}. Source: {traits.paper}.",
        _table(("trait", "value"), _traits(traits)),
        "## Options",
        _table(("option", "default"), options) if options else "It has none.",
        "## Weights that ship",
        ", ".join(f"[{card}](../weights/{card}.md)" for card in weights) or "None.",
        "## Class",
        f"::: mrnets.nets.{name}",
    )


def _traits(traits: Traits) -> list[tuple[str, str]]:
    """Return what a network declares, for a table."""
    echoes = {"each": "each by itself", "together": "all together", "one": "one"}[traits.echoes]
    return [
        ("task", traits.task),
        ("learns", "yes" if traits.learns else "no: it runs without weights"),
        ("takes", {"kspace": "k-space", "image": "images", "both": "k-space and images"}[traits.takes]),
        ("coil sensitivities", traits.sens),
        ("neighbouring slices", str(traits.slices)),
        ("echoes", echoes),
        ("one graph for `torch.compile`", f"no: {traits.breaks_graph}" if traits.breaks_graph else "yes"),
    ]


def _recipe(name: str) -> str:
    """Return the page of a recipe: the comment at its top, and its text."""
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    top = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    said = [line.removeprefix("#").removeprefix(" ") for line in lines[:top]]
    about = "\n".join(line for line in said if not line.startswith("  "))
    commands = "\n".join(line.strip() for line in said if line.startswith("  "))
    parts = [f"# {name}", _escaped(about)]
    if commands:
        parts.append(_code(commands, "sh"))
    return _joined(*parts, "## File", _code("\n".join(lines[top:]), "yaml"))


def _command(program: str) -> str:
    """Return the page of a program: the help of each of its commands."""
    main = importlib.import_module(f"{program}.__main__")
    parts = [f"# python -m {program}", _code(_help(main.main, []), "text")]
    for command in main.EXAMPLES:
        parts += [f"## {command}", _code(_help(main.main, [command]), "text")]
    return _joined(*parts)


def _help(main: Callable[[Sequence[str]], int], words: list[str]) -> str:
    """Return what a program says on --help."""
    said, ended = io.StringIO(), contextlib.suppress(SystemExit)
    with mock.patch.dict(os.environ, COLUMNS=_COLUMNS), contextlib.redirect_stdout(said), ended:
        main([*words, "--help"])
    return said.getvalue()


def _module(name: str) -> str:
    """Return the page of a module: mkdocstrings writes it."""
    return _joined(f"# {name}", f"::: {name}")


_FAMILIES: tuple[tuple[str, str, Callable[[], Sequence[str]], Callable[[str], str]], ...] = (
    ("chains", "Chains", chain_stems, _chain),
    ("gadgets", "Gadgets", gadget_names, _gadget),
    ("networks", "Networks", store.names, _network),
    ("recipes", "Recipes", recipe_names, _recipe),
    ("commands", "Commands", lambda: PROGRAMS, _command),
    ("api", "Modules", modules, _module),
)
"""Folder, title, names, and what makes the page of one."""


def _listed(title: str, members: dict[str, str]) -> str:
    """Return the page that lists the members of a family, each with its first sentence."""
    rows = [(f"[{name}]({name}.md)", _first_sentence(text, name)) for name, text in members.items()]
    return _joined(f"# {title}", _table(("name", "what it is"), rows))


def _first_sentence(page: str, name: str) -> str:
    """Return the first sentence of a page, or of a module's docstring."""
    if f"::: {name}" in page:
        file = ROOT.joinpath(*name.split("."))
        source = file.with_suffix(".py") if file.with_suffix(".py").is_file() else file / "__init__.py"
        found = re.match(r'\s*"""(.*?)(?:\n\n|""")', source.read_text(encoding="utf-8"), re.DOTALL)
        text = _escaped(found[1]) if found else ""
    else:
        text = page.split("\n\n")[1] if not page.split("\n\n")[1].startswith("```") else ""
    sentence = re.match(r".*?\.(?=\s|$)", text, re.DOTALL)
    return " ".join((sentence[0] if sentence else text).split())


def _relinked(file: Path, deep: int = 0) -> str:
    """Return a file of the project as a page. Links to what is no page become plain text.

    deep: folders between the page and the root of the site."""
    folder = (ROOT / file).resolve().parent

    def link(match: re.Match[str]) -> str:
        picture, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if "://" in target:
            return match[0]
        place = (folder / target).resolve().relative_to(ROOT).as_posix()
        site = _place(place)
        return f"{picture}[{text}]({'../' * deep}{site}{anchor})" if site else f"{text}"

    return _LINK.sub(link, (ROOT / file).read_text(encoding="utf-8"))


def _place(file: str) -> str | None:
    """Return where a file of the project is in the site, or None."""
    if file in FOLDERS:
        return f"{FOLDERS[file]}/index.md"
    weights = re.fullmatch(r"mrnets/weights/(\w+)\.md", file)
    own = file.removeprefix("docs/") if file.startswith("docs/") else None
    return f"weights/{weights[1]}.md" if weights else HAND_WRITTEN.get(file) or PICTURES.get(file) or own


FOLDERS = {"mrnets/weights": "networks", "chains": "chains", "docs/tutorials": "tutorials"}
"""Folders that have a page, by its place."""
PICTURES = {"tests/benchmarks/scale.png": "pictures/scale.png"}
"""Pictures beside such files, by their places in the site."""


def structured(text: str) -> str:
    """Return a docstring in which Markdown sees what its lines mean.

    A list gets the empty line that Markdown wants before it. A line that names an argument begins a new line."""
    made: list[str] = []
    for line in text.splitlines():
        before = made[-1] if made else ""
        if _ITEM.match(line) and before and not _ITEM.match(before) and not before.startswith(" "):
            made.append("")
        elif _ARGUMENT.match(line) and before and not _ITEM.match(before):
            made[-1] += "  "
        made.append(line)
    return "\n".join(made)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return plain text with Markdown's own signs as they are, and code in backticks left alone."""
    parts = text.split("`")
    return "`".join(part if n % 2 else re.sub(r"([*_<\[\]|])", r"\\\1", part) for n, part in enumerate(parts))


def _code(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def titles() -> Iterator[tuple[str, str]]:
    """Yield folder and title of each family, for the navigation."""
    yield from ((folder, title) for folder, title, _, _ in _FAMILIES)
