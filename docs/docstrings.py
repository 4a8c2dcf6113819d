"""Docstrings as Markdown: mkdocstrings hands each to this extension of griffe before it writes the page."""

from __future__ import annotations

from typing import Any

import griffe

from docs.pages import structured

__all__ = ["Docstrings"]


class Docstrings(griffe.Extension):
    """Gives lists and arguments of docstrings their lines."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Change the docstring of a module, class, function or attribute, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = structured(obj.docstring.value)
