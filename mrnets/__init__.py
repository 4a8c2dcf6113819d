"""Networks and the physics they stand on. Nothing is imported here: `mrnets.physics` loads without torch."""

__version__ = "0.1.0"
