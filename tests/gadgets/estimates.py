"""Frames with an estimate, as the network gadget leaves them."""

from __future__ import annotations

from dataclasses import replace

from gadgets.images import images
from gadgets.sort import sort
from mrnets.contract import Estimate
from tests.gadgets import synthetic

NY, NX = 12, 16


def sorted_frames(rng, header, *, slices=1, repetitions=1, matrix=(NX, NY, 1), contrasts=1):
    x, y, z = matrix
    stream = []
    for repetition in range(repetitions):
        for n in range(slices):
            for contrast in range(contrasts):
                kspace = synthetic.to_kspace(synthetic.coil_images(rng, 2, y, x, z))
                stream.append(
                    synthetic.lines(kspace, slice=n, repetition=repetition, contrast=contrast, set=3, phase=2)
                )
    return list(sort(stream, header))


def estimated(frame, image=None, **fields):
    if image is None and not fields:
        image = frame.raw.kspace[:, :, 0]
    return replace(frame, estimate=Estimate(image=image, **fields), history=("prewhitened", "varnet"))


def plain(matrix=(NX, NY, 1), **options):
    te = options.pop("te", ())
    return synthetic.header(synthetic.encoding(matrix, **options), te=te)


def one(rng, header=None, **fields):
    header = header or plain()
    (frame,) = sorted_frames(rng, header)
    return list(images([estimated(frame, **fields)], header))
