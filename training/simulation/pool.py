"""A pool of images on the device, and the batches that are drawn from it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mrnets.contract import Scan
from training.simulation.draws import Draws
from training.simulation.images import SIZE, Images, greys, load_images
from training.simulation.layout import Layout, draw_layouts
from training.simulation.objects import Tiles, seen
from training.simulation.phantoms import draw_phantom
from training.simulation.sampling import Masks, draw_masks
from training.simulation.scans import Simulated, simulated
from training.simulation.settings import Simulation, check

__all__ = ["Pool", "draw", "load_pool", "objects", "pooled", "validation"]

Plane = tuple[int, int]
PHANTOMS = 64


@dataclass(frozen=True)
class Pool:
    """All on one device."""

    tiles: torch.Tensor
    """(image, SIZE, SIZE) uint8, each in the middle; `anatomy` images first, phantoms behind them."""
    extent: torch.Tensor
    """(image, 2) float32: the pixels along y and x that each takes up."""
    anatomy: int
    layouts: tuple[Layout, ...]
    masks: dict[Plane, Masks]
    """Masks of each matrix (y, x)."""

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.tiles.device


def load_pool(path: Path, device: torch.device | str, options: Simulation, *, seed: int = 0) -> Pool:
    """The images of a file, random phantoms, and the masks of all matrices. Raises InputError for another file."""
    return pooled(load_images(path), device, options, seed=seed)


def pooled(
    images: Images, device: torch.device | str, options: Simulation, *, seed: int = 0, masks: bool = True
) -> Pool:
    """`images`, random phantoms, and the masks of all matrices; none without `masks`, and then no `draw`.

    Raises InputError for settings that cannot be.
    """
    check(options)
    device = torch.device(device)
    rng = np.random.default_rng([seed, 1])
    phantoms = [greys(draw_phantom(rng, SIZE)) for _ in range(PHANTOMS if options.phantoms else 0)]
    layouts = draw_layouts(rng, options)
    shapes = dict.fromkeys(layout.shape for layout in layouts)
    drawn = {shape: draw_masks(shape, rng, options, device) for shape in shapes if masks}
    pixels = [*images.pixels, *phantoms]
    tiles = np.zeros((len(pixels), SIZE, SIZE), np.uint8)
    for tile, image in zip(tiles, pixels, strict=True):
        top, left = (SIZE // 2 - n // 2 for n in image.shape)
        tile[top : top + image.shape[0], left : left + image.shape[1]] = image
    extent = torch.tensor([image.shape for image in pixels], dtype=torch.float32)
    return Pool(torch.from_numpy(tiles).to(device), extent.to(device), len(images.pixels), layouts, drawn)


def draw(pool: Pool, options: Simulation, *, seed: int, number: int, size: int) -> Simulated:
    """Batch `number` of the run with this `seed`, always the same one; of `size` slices, or as `options.samples` has
    room for."""
    rng = np.random.default_rng([seed, 2, number])
    generator = torch.Generator(pool.device).manual_seed(int(rng.integers(2**62)))
    layout = pool.layouts[int(rng.integers(len(pool.layouts)))]
    room = options.samples // (layout.coils * math.prod(layout.shape))
    draws = Draws(generator, max(min(size, room), 1))
    with _exact_products():
        images = objects(pool, layout, draws, options)
        return simulated(images, pool.masks[layout.shape].chosen(draws), layout, draws, options)


def objects(pool: Pool, layout: Layout, draws: Draws, options: Simulation) -> torch.Tensor:
    """(batch, *layout.fine) float32: images of the pool as a scanner might see them, bright tissue 1."""
    return seen(_chosen(pool, draws, options.phantoms), layout, draws, options)


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Matrix products in full precision, even where the network runs in a lower one. Maps and data must agree."""
    fast = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = fast


def _chosen(pool: Pool, draws: Draws, phantoms: float) -> Tiles:
    """One image for each slice, some of them phantoms."""
    number = draws.integers(pool.anatomy)
    count = len(pool.tiles) - pool.anatomy
    if count:
        number = torch.where(draws.chance(phantoms) > 0, pool.anatomy + draws.integers(count), number)
    return Tiles(pool.tiles[number], pool.extent[number])


def validation(path: Path, device: torch.device | str, *, slices: int = 6) -> Iterator[tuple[str, Simulated]]:
    """Batches of held-out images, with a name: three levels of noise, three kinds of sampling. Drawn on the CPU from a
    fixed seed, so that every machine has the same ones."""
    kinds = {"R4": (("regular1d",), 4.0), "R8": (("regular1d",), 8.0), "Poisson 5": (("poisson2d",), 5.0)}
    for n, snr in enumerate((30.0, 100.0, 1000.0)):
        for m, (name, (functions, acceleration)) in enumerate(kinds.items()):
            options = Simulation(
                snr=(snr, snr),
                masks=functions,
                acceleration=(acceleration, acceleration),
                matrix=(96, 256),
                coils=(8, 16),
                shapes=3,
                layouts=3,
                masks_each=slices,
                partial_fourier=0.0,
                folded=0.0,
                phantoms=0.0,
            )
            pool = load_pool(path, "cpu", options, seed=100 * n + m)
            made = draw(pool, options, seed=n, number=m, size=slices)
            yield f"SNR {snr:.0f}, {name}", _moved(made, device)


def _moved(made: Simulated, device: torch.device | str) -> Simulated:
    scan = made.scan
    moved = {name: getattr(scan, name).to(device) for name in ("kspace", "mask", "sens", "noise")}
    return Simulated(Scan(**moved), made.target.to(device), made.unexplained.to(device))
