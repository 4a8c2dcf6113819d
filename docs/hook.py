"""Gives mkdocs what is not in mkdocs.yml: the generated pages, the tutorials, and their places in the navigation."""

from __future__ import annotations

from pathlib import Path

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from docs.pages import PICTURES, ROOT, pages, titles

__all__ = ["on_config", "on_files"]

TUTORIALS = Path(__file__).parent / "tutorials"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Return the configuration with a section for each family of generated pages."""
    made = sorted(pages())
    scripts = [f"tutorials/{script.stem}.md" for script in sorted(TUTORIALS.glob("*.py"))]
    config.nav = [*(config.nav or []), {"Tutorials": ["tutorials/index.md", *scripts]}]
    for folder, title in titles():
        index = f"{folder}/index.md"
        members = [page for page in made if page.startswith(f"{folder}/") and page != index]
        config.nav = [*config.nav, {title: [index, *members]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the files of the site with the generated pages, the tutorials, and pictures of other folders."""
    for place, text in pages().items():
        if (written := files.get_file_from_path(place)) is not None:
            files.remove(written)  # the same page, with links of the site
        files.append(File.generated(config, place, content=text))
    for script in sorted(TUTORIALS.glob("*.py")):
        notebook = jupytext.read(script, fmt="py:percent")
        files.append(File.generated(config, f"tutorials/{script.stem}.md", content=_page(notebook, script.stem)))
        files.append(
            File.generated(config, f"tutorials/{script.stem}.ipynb", content=jupytext.writes(notebook, "ipynb"))
        )
    for file, place in PICTURES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / file)))
    return files


def _page(notebook: jupytext.jupytext.NotebookNode, name: str) -> str:
    """Return a notebook as a page, with a link to the notebook itself."""
    cells = [
        cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```" for cell in notebook.cells
    ]
    title, *others = cells
    return "\n\n".join([title, f"[This page as a notebook]({name}.ipynb)", *others]) + "\n"
