"""The direction of imports, read from the syntax trees: what CONTRIBUTING promises."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABOVE = ("mrnets.blocks", "mrnets.nets", "mrnets.store", "mrnets.prepare", "mrnets.prepare_image", "mrnets.stages")
FILES = sorted(p for folder in ("gadgets", "mrnets", "training") for p in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that `path` imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden(path: Path) -> tuple[str, ...]:
    """The prefixes that `path` must not import."""
    name = path.relative_to(ROOT).as_posix()
    rules = {
        "mrnets/": ("gadgets", "training", "gadgetron"),
        "mrnets/physics/": ("torch", "cupy", "mrnets.mrd", *ABOVE),
        "mrnets/mrd/": ("torch", "cupy", *ABOVE),
        "mrnets/blocks/": ("mrnets.nets", "mrnets.atommic", "mrnets.store", "mrnets.prepare"),
        "mrnets/nets/": ("mrnets.atommic", "mrnets.store", "mrnets.prepare"),
        "mrnets/atommic/forms.py": ("mrnets.store", "mrnets.prepare"),
        "mrnets/traits.py": ("torch", "mrnets"),
        "training/": ("gadgets", "gadgetron"),
        "gadgets/": ("training",),
    }
    banned = [prefix for place, prefixes in rules.items() if name.startswith(place) for prefix in prefixes]
    if name.startswith("mrnets/") and not name.startswith("mrnets/mrd/"):  # raw data are ISMRMRD's
        banned.append("ismrmrd")
    if name.startswith("gadgets/") and not name.startswith(("gadgets/hosts/", "gadgets/connection.py")):
        banned.append("gadgetron")
    return tuple(banned)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    for name in imports(path):
        for prefix in forbidden(path):
            assert not f"{name}.".startswith(f"{prefix}."), f"{path} imports {name}"


def test_the_rule_sees_a_breach() -> None:
    assert "training" in forbidden(ROOT / "gadgets" / "sort.py")
    assert "gadgetron" in forbidden(ROOT / "gadgets" / "wire.py")
    assert "gadgetron" not in forbidden(ROOT / "gadgets" / "connection.py")
    assert "torch" in forbidden(ROOT / "mrnets" / "physics" / "coils.py")
    assert "ismrmrd" in forbidden(ROOT / "mrnets" / "store.py")
    assert "ismrmrd" not in forbidden(ROOT / "mrnets" / "mrd" / "lines.py")
