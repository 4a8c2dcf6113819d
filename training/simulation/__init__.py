"""Scans of a scanner that never was, simulated in batches on the device that trains."""

from training.simulation.pool import Pool, draw, load_pool, save_pool, validation
from training.simulation.scans import Simulated, simulated
from training.simulation.settings import Simulation

__all__ = ["Pool", "Simulated", "Simulation", "draw", "load_pool", "save_pool", "simulated", "validation"]
