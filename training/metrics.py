"""Metrics of images, maps and segmentations, and all that apply to an example: `scores`.

Images (..., y, x), real: SSIM, PSNR and NMSE, per image, differentiable; the result has the leading axes. The data
range is the target's maximum, of each image separately. Nothing is clipped or floored. Masks ([z,] y, x) bool, NumPy:
DICE, IoU, HD95 and the metrics of the ISLES 2022 challenge; lengths in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from mrnets.classes import classes_of, decided, foreground
from mrnets.contract import Estimate
from mrnets.physics.arrays import to_numpy
from mrnets.physics.maps import facts
from training.data import Example
from training.selfsupervised import missed

__all__ = [
    "ald",
    "avd",
    "comparable",
    "dice",
    "f1",
    "hd95",
    "iou",
    "lesion_f1",
    "nmse",
    "psnr",
    "scores",
    "segmented",
    "ssim",
]

Mask = NDArray[np.bool_]


def ssim(image: Tensor, target: Tensor, *, width: int = 7, data_range: float | None = None) -> Tensor:
    """Return the structural similarity (Wang 2004), the mean over the image, as scikit-image's structural_similarity.

    The window is uniform and lies wholly inside the image, and variances are those of samples. `data_range`: None, the
    target's maximum.
    """
    lead, (ny, nx) = image.shape[:-2], image.shape[-2:]
    x, y = image.reshape(-1, 1, ny, nx), target.reshape(-1, 1, ny, nx)
    top = (
        positive(y.amax(dim=(-2, -1), keepdim=True))
        if data_range is None
        else torch.full_like(y[:, :, :1, :1], data_range)
    )
    c1, c2 = (0.01 * top) ** 2, (0.03 * top) ** 2

    # Sums of products around the mean of the whole image: less cancellation in float32.
    centre = y.mean(dim=(-2, -1), keepdim=True)
    u, v = x - centre, y - centre
    means = functional.avg_pool2d(torch.cat((u, v, u * u, v * v, u * v), dim=1), width, stride=1)
    mean_u, mean_v, mean_uu, mean_vv, mean_uv = (means[:, i : i + 1] for i in range(5))
    sample = width**2 / (width**2 - 1)
    var_x, var_y = sample * (mean_uu - mean_u**2), sample * (mean_vv - mean_v**2)
    covariance = sample * (mean_uv - mean_u * mean_v)
    mean_x, mean_y = mean_u + centre, mean_v + centre
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (numerator / denominator).mean(dim=(-3, -2, -1)).reshape(lead)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio, dB: 10 log10(max(target)^2 / mean squared error)."""
    peak, error = target.amax(dim=(-2, -1)), ((image - target) ** 2).mean(dim=(-2, -1))
    return 10 * torch.log10(peak**2 / error)


def nmse(image: Tensor, target: Tensor) -> Tensor:
    """Return the squared error over the target's energy."""
    error, energy = ((image - target) ** 2).sum(dim=(-2, -1)), (target**2).sum(dim=(-2, -1))
    return error / energy


def dice(mask: Mask, target: Mask) -> float:
    """Return twice the overlap over the sum of the sizes; 1 where both are empty."""
    both = int(mask.sum()) + int(target.sum())
    return 2 * int((mask & target).sum()) / both if both else 1.0


def iou(mask: Mask, target: Mask) -> float:
    """Return overlap over union; 1 where both are empty."""
    union = int((mask | target).sum())
    return int((mask & target).sum()) / union if union else 1.0


def f1(mask: Mask, target: Mask) -> float:
    """Return 2 P R / (P + R) of precision P and recall R of the pixels of all classes together.

    It is 1 where both are empty. For a single class it is the Dice coefficient.
    """
    return dice(mask, target)


def hd95(mask: Mask, target: Mask) -> float:
    """Return the Hausdorff distance of 95 % (Huttenlocher 1993), pixels.

    It is the larger of two 95th percentiles: of the distances from the surface of each mask to that of the other. Where
    both are empty it is 0. Where one is, it is the diagonal of the field of view, the largest distance there can be.
    """
    if not mask.any() and not target.any():
        return 0.0
    if not mask.any() or not target.any():
        return math.hypot(*(n - 1 for n in mask.shape))
    box = ndimage.find_objects((mask | target).astype(np.uint8))[0]
    surfaces = [m[box] & ~ndimage.binary_erosion(m[box]) for m in (mask, target)]
    far = [ndimage.distance_transform_edt(~surface) for surface in surfaces]
    return float(max(np.percentile(far[1][surfaces[0]], 95), np.percentile(far[0][surfaces[1]], 95)))


def ald(mask: Mask, target: Mask) -> float:
    """Return the absolute difference of the numbers of lesions (ISLES 2022). Pixels that touch, also by corners, are of
    one lesion."""
    return float(abs(_lesions(mask)[1] - _lesions(target)[1]))


def avd(mask: Mask, target: Mask) -> float:
    """Return the absolute difference of the volumes, pixels (ISLES 2022)."""
    return float(abs(int(mask.sum()) - int(target.sum())))


def lesion_f1(mask: Mask, target: Mask) -> float:
    """Return F1 over lesions (ISLES 2022); 1 where both are empty.

    A lesion of the target is found if it shares a pixel with the mask. A lesion of the mask is false if it shares none
    with the target.
    """
    estimated, count = _lesions(mask)
    true, wanted = _lesions(target)
    found = len(np.unique(true[mask & target]))
    false = count - len(np.unique(estimated[mask & target]))
    return 2 * found / (wanted + found + false) if wanted + count else 1.0


def scores(estimate: Estimate, example: Example, labels: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return every metric of what is present in both, by name: (batch,) float32 on the CPU, NaN where there is nothing.

    - Images: "ssim", "psnr", "nmse" of magnitudes, the mean over echoes. "nmse held": the squared error of predicted
      samples that were held out, over their energy.
    - Maps, inside the region: "nmse R2*" and so on, and "mae R2*", the mean absolute error in the unit of the map. That
      of S0 is relative to its largest value.
    - Segmentations: "dice GM" and so on; "dice", "iou" and "hd95" averaged over classes; "f1" over all pixels. Lesions
      have "ald", "avd" and "lesion_f1": classes with that word in their name, or the only one.

    labels: as of `Source`.
    """
    values: dict[str, Tensor] = {}
    if estimate.image is not None and example.target is not None:
        image, target = estimate.image.abs().float(), example.target.abs()
        seen = target.amax(dim=(1, 2, 3)) > 0
        for metric in (ssim, psnr, nmse):
            values[metric.__name__] = metric(image, target).mean(dim=1).where(seen, math.nan)
    if estimate.image is not None and example.kspace is not None and example.held is not None:
        error, energy = (z.abs().square().sum(dim=(1, 2, 3, 4)) for z in missed(estimate, example))
        values["nmse held"] = error / energy
    for name, (x, y) in comparable(estimate.maps, example.maps, example.region).items():
        values[f"nmse {name}"] = ((x - y) ** 2).sum(dim=(1, 2, 3)) / (y**2).sum(dim=(1, 2, 3))
        values[f"mae {name}"] = _absolute(name, x, y) / _size(example.region, x)
    if estimate.logits is not None and example.labels is not None:
        masks, targets = to_numpy(decided(estimate.logits, classes_of(labels))), to_numpy(example.labels)
        rows = [segmented(m, t, labels) for m, t in zip(masks, targets, strict=True)]
        values |= {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    return {name: value.detach().float().cpu() for name, value in values.items()}


def comparable(
    maps: Mapping[str, Tensor], targets: Mapping[str, Tensor], region: Tensor | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the maps and targets (batch, y, x) that both have, by name, as two tensors (batch, plane, y, x) float32.

    Their values have no unit (`mrnets.physics.maps`), and are 0 outside the region. An angle has two planes, its cosine
    and its sine, so that whole turns do not count. Other maps have one.
    """
    pairs = {}
    for name, target in targets.items():
        if name in maps:
            inside = torch.ones_like(target, dtype=torch.bool) if region is None else region
            top = positive((target.float() * inside).amax(dim=(1, 2), keepdim=True))
            x, y = (_planes(name, m.float(), top) * inside[:, None] for m in (maps[name], target))
            pairs[name] = (x, y)
    return pairs


def positive(x: Tensor) -> Tensor:
    """Return `x` as a divisor: 1 where it is not above 0, as in an empty slice."""
    return torch.where(x > 0, x, torch.ones_like(x))


def _planes(name: str, values: Tensor, top: Tensor) -> Tensor:
    known = facts(name)
    if known.wraps:
        return torch.stack((values.cos(), values.sin()), dim=1)
    return (values / (top if known.size is None else known.size))[:, None]


def _absolute(name: str, x: Tensor, y: Tensor) -> Tensor:
    """Sum of absolute errors of maps as `comparable` gives them, in the units of `scores`."""
    if facts(name).wraps:
        difference = torch.atan2(x[:, 1] * y[:, 0] - x[:, 0] * y[:, 1], (x * y).sum(dim=1))
    else:
        difference = (x - y)[:, 0] * (facts(name).size or 1.0)
    return difference.abs().sum(dim=(1, 2))


def _size(region: Tensor | None, like: Tensor) -> Tensor | int:
    """Pixels of the region of each slice."""
    return like.shape[-2] * like.shape[-1] if region is None else region.sum(dim=(1, 2))


def segmented(mask: Mask, target: Mask, labels: Sequence[str]) -> dict[str, float]:
    """Return the scores of one segmentation (class, [z,] y, x), as in `scores`."""
    first = foreground(labels)
    names = list(labels[first:]) or [str(n + 1) for n in range(len(mask))]
    pairs = dict(zip(names, zip(mask[first:], target[first:], strict=True), strict=True))
    each = {name: dice(*pair) for name, pair in pairs.items()}
    values = {f"dice {name}": value for name, value in each.items()} if len(each) > 1 else {}
    values |= {"dice": float(np.mean(list(each.values()))), "f1": f1(mask[first:], target[first:])}
    values |= {m.__name__: float(np.mean([m(*pair) for pair in pairs.values()])) for m in (iou, hd95)}
    lesions = [pair for name, pair in pairs.items() if "lesion" in name.lower() or len(pairs) == 1]
    counted: tuple[Callable[[Mask, Mask], float], ...] = (ald, avd, lesion_f1)
    return values | {m.__name__: float(np.mean([m(*pair) for pair in lesions])) for m in counted if lesions}


def _lesions(mask: Mask) -> tuple[NDArray[np.int32], int]:
    numbered, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return numbered, int(count)
