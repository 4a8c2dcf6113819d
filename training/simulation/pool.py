"""A pool of images on the device, and the batches that are drawn from it.

The file (.npz) has `pixels`, uint8, all images one after the other; `shapes` (image, 2), their y and x; `names`, their
sources. A value u stands for (u / 255)^2 * 2, bright tissue 1: dark greys are finer than bright ones.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.physics.simulate import phantom
from training.simulation.draws import Draws
from training.simulation.layout import Layout, draw_layouts
from training.simulation.objects import Tiles, seen
from training.simulation.sampling import Masks, draw_masks
from training.simulation.scans import Simulated, simulated
from training.simulation.settings import Simulation

__all__ = ["Pool", "draw", "load_pool", "save_pool", "validation"]

Plane = tuple[int, int]
SIZE = 384
"""Pixels along each axis of what is kept of an image."""
PHANTOMS = 96


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
    """Of each matrix (y, x)."""

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.tiles.device


def save_pool(path: Path, images: list[NDArray[np.float32]], names: list[str]) -> None:
    """A file of images (y, x), at least 0, bright tissue 1."""
    greys = [np.uint8(np.rint(255 * np.sqrt(np.clip(image / 2, 0, 1)))) for image in images]
    np.savez_compressed(
        path,
        pixels=np.concatenate([g.ravel() for g in greys]),
        shapes=np.array([g.shape for g in greys], np.int32),
        names=np.array(names),
    )


def load_pool(path: Path, device: torch.device | str, options: Simulation, *, seed: int = 0) -> Pool:
    """The images of a file, random phantoms, and the masks of all matrices. Raises InputError for another file."""
    device = torch.device(device)
    rng = np.random.default_rng([seed, 1])
    images, extent = _tiles(path)
    phantoms = np.stack([_phantom(rng) for _ in range(PHANTOMS)]) if options.phantoms else images[:0]
    layouts = draw_layouts(rng, options)
    shapes = dict.fromkeys(layout.shape for layout in layouts)
    masks = {shape: draw_masks(shape, rng, options, device) for shape in shapes}
    extents = np.concatenate([extent, np.full((len(phantoms), 2), SIZE)]).astype(np.float32)
    tiles = torch.from_numpy(np.concatenate([images, phantoms]))
    return Pool(tiles.to(device), torch.from_numpy(extents).to(device), len(images), layouts, masks)


def draw(pool: Pool, options: Simulation, *, seed: int, number: int, size: int) -> Simulated:
    """Batch `number` of the run with this `seed`, always the same one; of `size` slices, or as `options.samples` has
    room for."""
    rng = np.random.default_rng([seed, 2, number])
    generator = torch.Generator(pool.device).manual_seed(int(rng.integers(2**62)))
    layout = pool.layouts[int(rng.integers(len(pool.layouts)))]
    room = options.samples // (layout.coils * math.prod(layout.shape))
    draws = Draws(generator, max(min(size, room), 1))
    with _exact_products():
        images = seen(_chosen(pool, draws, options.phantoms), layout, draws, options)
        return simulated(images, pool.masks[layout.shape].chosen(draws), layout, generator, options)


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Matrix products with all digits, whatever the network is allowed: maps and data must fit together."""
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
    return Tiles(2 * (pool.tiles[number].float() / 255).square(), pool.extent[number])


def _tiles(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    try:
        with np.load(path) as file:
            pixels, shapes = file["pixels"], file["shapes"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a pool of images (.npz with pixels, shapes and names): {error}") from error
    ends = np.cumsum(shapes.prod(1))
    if pixels.dtype != np.uint8 or shapes.min() < 1 or shapes.max() > SIZE or ends[-1] != pixels.size:
        raise InputError(f"{path}: its images do not have the shapes that it gives, or are larger than {SIZE} pixels")
    tiles = np.zeros((len(shapes), SIZE, SIZE), np.uint8)
    for tile, (y, x), end in zip(tiles, shapes, ends, strict=True):
        top, left = SIZE // 2 - y // 2, SIZE // 2 - x // 2
        tile[top : top + y, left : left + x] = pixels[end - y * x : end].reshape(y, x)
    return tiles, shapes


def _phantom(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Ellipses in a body with a rim, bottles, or bars of all widths; (SIZE, SIZE)."""
    size = rng.uniform(0.6, 0.95, 2)
    rim, inside = rng.uniform(0.005, 0.06), rng.choice([1.0, rng.uniform(0.1, 0.9)])
    turn = rng.uniform(0, 360)
    body = [(1.0, *size, 0.0, 0.0, turn), (inside - 1.0, *(size - rim), 0.0, 0.0, turn)]
    parts = [
        (
            rng.uniform(-inside, 1.5 - inside),
            *rng.uniform(0.008, 0.25, 2),
            *rng.uniform(-0.4, 0.4, 2),
            rng.uniform(0, 360),
        )
        for _ in range(rng.integers(0, 16))
    ]
    image = np.clip(phantom((SIZE, SIZE), [*body, *parts], supersampling=2), 0, 2)
    if rng.random() < 0.4:
        image = image * _bars(rng)
    return np.uint8(np.rint(255 * np.sqrt(image / 2)))


def _bars(rng: np.random.Generator) -> NDArray[np.float64]:
    """Patches of parallel bars, 1 to 8 pixels wide; 1 elsewhere."""
    y, x = np.mgrid[:SIZE, :SIZE]
    factor = np.ones((SIZE, SIZE))
    for _ in range(rng.integers(1, 5)):
        top, left = rng.integers(SIZE // 4, SIZE * 3 // 4, 2)
        patch = np.s_[top : top + rng.integers(24, 80), left : left + rng.integers(24, 80)]
        angle, width = rng.choice([0.0, math.pi / 2, rng.uniform(0, math.pi)]), rng.uniform(1, 8)
        across = (np.cos(angle) * x + np.sin(angle) * y)[patch]
        factor[patch] = np.where(np.mod(across, 2 * width) < width, 1.0, rng.uniform(0, 0.8))
    return factor


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
    from training.batches import to_device

    moved: Simulated = to_device(made, device)
    return moved
