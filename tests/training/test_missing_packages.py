"""Where the extra `training` was not installed, one sentence names it."""

import sys

import pytest

from training.__main__ import main

COMMANDS = (["fit", "demo", "--dry-run"], ["check", ".", "--recipe", "ismrmrd"])


def hide(monkeypatch: pytest.MonkeyPatch, module: str, importer: str) -> None:
    """Make imports of `module` fail, and `importer` import it anew."""
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, importer, raising=False)


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: words[0])
def test_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    hide(monkeypatch, "yaml", "training.options")
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"training {arguments[0]}: the Python package yaml is missing: pip install 'gadgetron-networks[training]'"
    )


def test_a_module_of_ours_is_no_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "training.typed", "training.options")
    with pytest.raises(ModuleNotFoundError, match=r"training\.typed"):
        main(["fit", "demo"])
