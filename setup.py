"""Installs a file beside the packages, which pyproject.toml cannot express. All other settings are there."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TAKEOVER = Path(__file__).parent / "gadgets" / "hosts" / "gadgetron-networks.pth"


class BuildPy(build_py):
    """Also puts beside the packages the line that Python runs when Gadgetron starts it (gadgets/hosts/takeover.py)."""

    def run(self) -> None:
        """Build, for a wheel or for an editable installation."""
        super().run()
        editable = getattr(self, "editable_mode", False)
        folder = self.get_finalized_command("install").install_lib if editable else self.build_lib
        self.copy_file(str(TAKEOVER), folder)


setup(cmdclass={"build_py": BuildPy})
