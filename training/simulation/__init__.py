"""Scans of a scanner that never was, simulated in batches on the device that trains."""

from training.simulation.images import Images, load_images, save_images
from training.simulation.pool import Pool, draw, load_pool, pooled, validation
from training.simulation.scans import Simulated, simulated
from training.simulation.settings import Simulation

__all__ = [
    "Images",
    "Pool",
    "Simulated",
    "Simulation",
    "draw",
    "load_images",
    "load_pool",
    "pooled",
    "save_images",
    "simulated",
    "validation",
]
