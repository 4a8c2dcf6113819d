"""Install: `pip install .` for the scanner; extras add training, demo, GPU and development tools."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildPy(build_py):
    """Also puts beside the packages the line that Python runs when Gadgetron starts it (gadgets/hosts/takeover.py)."""

    def run(self) -> None:
        """Build, for a wheel or for an editable installation."""
        super().run()
        editable = getattr(self, "editable_mode", False)
        folder = self.get_finalized_command("install").install_lib if editable else self.build_lib
        self.copy_file(str(HERE / "gadgets" / "hosts" / "gadgetron-networks.pth"), folder)


setup(
    name="gadgetron-networks",
    version="0.1.0",
    description="Trained MR reconstruction networks as Gadgetron gadgets, online, offline and in training",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["gadgets*", "mrnets*", "training*"]),
    cmdclass={"build_py": BuildPy},
    package_data={
        "gadgets": ["hosts/*.pth"],
        "mrnets": ["weights/*.safetensors", "weights/*.md"],
        "training": ["recipes/*.yaml"],
    },
    # Where a Gadgetron server looks its chains up, below its own prefix.
    data_files=[("share/gadgetron/config", sorted(str(p.relative_to(HERE)) for p in (HERE / "chains").glob("*.xml")))],
    install_requires=[
        "array-api-compat>=1.11",
        "gadgetron>=1.4.1",
        "h5py>=3.8",
        "ismrmrd>=1.14",
        "numpy>=1.26",
        "safetensors>=0.4.3",
        "torch>=2.2",
    ],
    extras_require={
        "gpu": ["cupy-cuda12x>=13"],
        "training": [
            "filelock>=3.12",
            "matplotlib>=3.8",
            "nibabel>=5",
            "nilearn>=0.10",
            "pillow>=10",
            "pyyaml>=6",
            "scikit-image>=0.22",
            "scipy>=1.11",
        ],
        "tensorboard": ["tensorboard>=2.15"],
        "wandb": ["wandb>=0.16"],
        "export": ["pillow>=10"],
        "demo": ["matplotlib>=3.8", "nibabel>=5", "nilearn>=0.10", "pillow>=10", "scikit-image>=0.22"],
        "dev": [
            "hypothesis>=6",
            "mypy>=1.11",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "scikit-image>=0.22",
            "types-PyYAML",
        ],
    },
)
