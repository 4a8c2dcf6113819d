"""Networks for arrays: `mrnets.load` and `mrnets.reconstruct`, without streams and files of scans."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from array_api_compat import is_cupy_array, is_numpy_array

from mrnets import store
from mrnets.atommic.notes import notes as atommic_notes
from mrnets.classes import decided
from mrnets.contract import UNCHECKED, Check, Estimate, Raw, Scan, Trust
from mrnets.ending import ended
from mrnets.errors import InputError, unknown
from mrnets.given import raw_of
from mrnets.noise import agreed_noise
from mrnets.physics.arrays import Array, array_namespace, device
from mrnets.preparation import Preparation, as_it_comes
from mrnets.prepare import prepare_blocks
from mrnets.restore import restore
from mrnets.selfcheck import checked
from mrnets.stages import whiten_raw
from mrnets.store import Trained, load
from mrnets.tensors import part
from mrnets.traits import Echoes
from mrnets.trust import doubt, together

__all__ = ["DEFAULT", "Check", "Reconstruction", "Trained", "load", "reconstruct"]

DEFAULT = "l1varnet_general"
"""The weights that the default chain has, too."""
AT_ONCE = 16
"""Readout positions of a volume in one forward pass."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The result of `reconstruct`. Arrays are of the library of k-space, and on its device."""

    image: Array | None
    """complex64, with the axes of k-space without coils. Its unit is that of k-space, or the noise of a sample where
    that is given. None: the network makes maps alone."""
    maps: Mapping[str, Array] = field(default_factory=dict)
    """Maps of a quantitative network by their names, with the axes of k-space without echoes and coils."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of the maps."""
    labels: Mapping[str, Array] = field(default_factory=dict)
    """Masks (bool) of the classes that a joint network finds, by their names; axes as those of maps."""
    trust: tuple[Trust, ...] = ()
    """How far the network's image agrees with the data: of each slice, or one of a volume. Empty: not checked."""
    notes: tuple[str, ...] = ()
    """Sentences that whoever looks at the image must know. One that starts with FALLBACK or WARNING speaks against the
    network's image."""


@dataclass(frozen=True)
class _Method:
    """A network with all that it takes to run it."""

    name: str
    network: Callable[[Scan], Estimate]
    preparation: Preparation | None
    """None: of a network without weights, which takes what there is."""
    echoes: Echoes
    device: torch.device
    checked: bool = False
    """A trained reconstruction network, whose images the data can speak against."""
    units: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def reconstruct(
    kspace: Array,
    weights: str | os.PathLike[str] | Trained = DEFAULT,
    *,
    mask: Array | None = None,
    calibration: Array | None = None,
    noise: Array | None = None,
    echo_times: Sequence[float] | None = None,
    volume: bool = False,
    check: Check = "fallback",
) -> Reconstruction:
    """Return the image, or maps, of Cartesian k-space. It is what the gadgets make of the same data.

    kspace: (coil, y, x), (slice, coil, y, x) or (slice, echo, coil, y, x), complex, of NumPy, CuPy or torch. Its centre
    is at n // 2 of each axis, and what was not sampled is zero. The transform is orthonormal.
    weights: a weights file, the name of one that ships, or what `mrnets.load` gave. Also a network without weights:
    "cgsense", "l1wavelet" or "zerofilled". The network runs on its own device; one that is named, where k-space is.
    mask: (y, x) or (slice, y, x), true where samples count. None: where k-space is not zero.
    calibration: ([slice,] coil, y', x'), separate calibration lines. None: the fully sampled centre of k-space.
    noise: (coil, sample), complex samples of a noise measurement at the bandwidth of k-space; or their covariance
    (coil, coil). Without it nothing is whitened, and the noise level is estimated.
    echo_times: s, of each echo, for quantitative networks.
    volume: a 3-D scan, k-space ([echo,] coil, z, y, x) with a fully sampled readout x, mask (z, y), calibration (coil,
    z', y', x).
    check: what is done where the data speak against the image of a trained reconstruction network; see `Check`.

    Raises InputError, in one sentence, for arguments that do not fit together and for a network that cannot be had.
    """
    if check not in ("fallback", "warn", "off"):
        raise unknown("value of check", str(check), ("fallback", "warn", "off"))
    method = _method(weights, kspace)
    raw = raw_of(
        kspace,
        mask=mask,
        calibration=calibration,
        noise=noise,
        echo_times=echo_times,
        volume=volume,
        device=method.device,
    )
    wants = None if method.preparation is None else method.preparation.whiten
    if raw.noise is not None and wants != "none":
        raw = whiten_raw(raw, raw.noise)
    parts = [raw] if volume else [part(raw, slice(n, n + 1)) for n in range(len(raw.kspace))]
    with torch.no_grad():
        made = [_made(one, method, check) for one in parts]
    notes = [f"{method.name} was trained on prewhitened data, and no noise is given"]
    notes = [*method.notes, *(notes if wants == "covariance" and not raw.whitened else [])]
    notes += [note for _, trust, some in made for note in some]
    found = _joined([estimate for estimate, _, _ in made])
    return Reconstruction(
        **_as_given(found, kspace, method, volume=volume),
        units={name: method.units[name] for name in found.maps if name in method.units},
        trust=tuple(trust for _, trust, _ in made if trust is not None),
        notes=tuple(dict.fromkeys(notes)),
    )


def _method(weights: str | os.PathLike[str] | Trained, kspace: Array) -> _Method:
    """Return the network that is asked for. Raises InputError."""
    here = _device(kspace)
    if isinstance(weights, str) and weights in store.names() and not store.describe(weights).learns:
        return _classical(weights, here)
    trained = weights if isinstance(weights, Trained) else load(weights, here)
    traits = store.describe(trained.name)
    if traits.takes_with(trained.options) != "kspace":
        raise InputError(f"the network {trained.name} takes images; `reconstruct` is for networks on k-space alone")
    weight = next(trained.network.parameters(), None)
    return _Method(
        name=trained.name if isinstance(weights, Trained) else Path(weights).stem,
        network=trained.network,
        preparation=Preparation.from_json(trained.preparation),
        echoes=traits.echoes,
        device=here if weight is None else weight.device,
        checked=traits.task == "reconstruction",
        units=trained.metadata["units"],
        labels=tuple(trained.metadata["labels"]),
        notes=(*trained.notes, *atommic_notes(trained.name, trained.options)),
    )


def _classical(name: str, place: torch.device) -> _Method:
    return _Method(name, store.create(name).to(place).eval(), None, store.describe(name).echoes, place)


def _device(kspace: Array) -> torch.device:
    """Return where an array of any library is, as torch calls it."""
    if isinstance(kspace, torch.Tensor):
        return kspace.device
    return torch.device("cuda", device(kspace).id) if is_cupy_array(kspace) else torch.device("cpu")


def _made(raw: Raw, method: _Method, check: Check) -> tuple[Estimate, Trust | None, tuple[str, ...]]:
    """Return the estimate of a slice or volume, what the data say of it, and notes."""
    estimate, notes = _estimated(raw, method, check if method.checked else "off")
    trust = together(estimate.trust)
    if trust is None and method.checked and check != "off":
        notes = (*notes, f"{method.name}: {UNCHECKED}")
    reason = "" if trust is None else doubt(trust)
    if not reason:
        return estimate, trust, notes
    told = f"the network {method.name} is not to be trusted: {reason}"
    told = f"WARNING: {told}" if check == "warn" else f"FALLBACK to l1wavelet: {told}"
    _logger.warning("%s", told)
    if check == "fallback":
        estimate, notes = _estimated(raw, _classical("l1wavelet", method.device), "off")
    return estimate, trust, (told, *notes)


def _estimated(raw: Raw, method: _Method, check: Check) -> tuple[Estimate, tuple[str, ...]]:
    """Return the estimate in the units of k-space, and notes. Raises InputError for values that are not finite."""
    raw, notes = agreed_noise(raw)
    preparation = method.preparation or as_it_comes(raw)
    forward = checked(ended(method.network, preparation, method.echoes), check, len(raw.kspace))
    parts = []
    for block in prepare_blocks(raw, preparation, size=AT_ONCE):
        parts.append(restore(forward(block.scan), block))
        notes = (*notes, *block.notes)
    found = _joined(parts)
    for array in filter(lambda x: x is not None, (found.image, found.logits, *found.maps.values())):
        if not bool(torch.isfinite(array).all()):
            raise InputError(f"the network {method.name} gives values that are not finite for this k-space")
    return found, tuple(dict.fromkeys(notes))


def _joined(parts: list[Estimate]) -> Estimate:
    """Return estimates of parts of a batch as one."""

    def cat(arrays: list[Any]) -> Any:
        return None if arrays[0] is None else torch.cat(arrays)

    return Estimate(
        image=cat([one.image for one in parts]),
        maps={name: cat([one.maps[name] for one in parts]) for name in parts[0].maps},
        logits=cat([one.logits for one in parts]),
        trust=tuple(trust for one in parts for trust in one.trust),
    )


def _as_given(found: Estimate, kspace: Array, method: _Method, *, volume: bool) -> dict[str, Any]:
    """Return image, maps and labels with the axes, the library and the device of k-space."""

    def plane(x: Any) -> Any:
        """A map (batch, y, x); of a volume it is (x, z, y)."""
        return _like(x.movedim(0, -1) if volume else x[0] if kspace.ndim == 3 else x, kspace)

    image = found.image
    if image is not None:
        image = image.movedim(0, -1) if volume else image  # (echo, z, y, x), or (slice, echo, y, x)
        image = image if kspace.ndim == 5 else image[0] if volume else image[:, 0]
        image = _like(image[0] if kspace.ndim == 3 else image, kspace)
    labels: dict[str, Array] = {}
    if found.logits is not None and method.preparation is not None:
        masks = decided(found.logits, method.preparation.classes)
        labels = {name: plane(masks[:, n]) for n, name in enumerate(method.labels)}
    return {"image": image, "maps": {name: plane(x) for name, x in found.maps.items()}, "labels": labels}


def _like(x: torch.Tensor, kspace: Array) -> Array:
    """Return a tensor as an array of the library of k-space, on its device."""
    x = x.to(_device(kspace)).contiguous()
    if is_numpy_array(kspace):
        return x.numpy()
    return array_namespace(kspace).from_dlpack(x) if is_cupy_array(kspace) else x
