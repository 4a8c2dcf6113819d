"""The part of the field of view that a network sees, as its preparation asks for it. Axes: see `mrnets.contract`."""

from __future__ import annotations

from mrnets.contract import Raw
from mrnets.preparation import Plane, Preparation
from mrnets.stages import complete_axes, crop_raw

__all__ = ["at_most", "cropped", "possible_view", "unseen"]


def cropped(raw: Raw, preparation: Preparation) -> Raw:
    """Return `raw` with its field of view and its k-space cropped as `preparation` says, along axes where that can be
    had."""
    view, _ = possible_view(raw, preparation.image_crop)
    return crop_raw(raw, image=view, kspace=preparation.kspace_crop)


def possible_view(raw: Raw, crop: Plane | None) -> tuple[Plane, tuple[str, ...]]:
    """Return the field of view (y, x) that can be had, and a note where it is not `crop`."""
    whole = (raw.kspace.shape[-2], raw.kspace.shape[-1])
    wanted = at_most(whole, crop)
    if wanted == whole:
        return whole, ()
    y, x = (m if complete else n for n, m, complete in zip(whole, wanted, complete_axes(raw.mask), strict=True))
    if (y, x) == wanted:
        return wanted, ()
    note = f"the network was trained on {wanted[0]} x {wanted[1]} pixels; undersampled axes are not cropped to that"
    return (y, x), (note,)


def at_most(shape: Plane, crop: Plane | None) -> Plane:
    """Return `shape` with neither axis longer than that of `crop`; None: as it is."""
    return shape if crop is None else (min(shape[0], crop[0]), min(shape[1], crop[1]))


def unseen(whole: Plane, view: Plane) -> tuple[str, ...]:
    """Return the note on images whose pixels beyond `view` are zero; none where `view` is the whole."""
    if view == whole:
        return ()
    return (f"the network sees the middle {view[0]} x {view[1]} of {whole[0]} x {whole[1]} pixels; the rest is zero",)
