"""The self-check of reconstruction networks: what is done about a doubtful image, and what the images say of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

from gadgets.frame import Frame
from mrnets.contract import Check, Estimate, Trust

__all__ = ["MEASURES", "USUAL_CAUTION", "Caution", "doubted", "numbers"]


@dataclass(frozen=True)
class Caution:
    """Properties of the network gadget for networks that fail, and for images in doubt."""

    fallback: Literal["l1wavelet", "cgsense", "zerofilled", "none"] = "l1wavelet"
    """The reconstruction of a frame on which the network fails; "none": the chain ends with its error."""
    strict: bool = False
    """Whether a scan of another kind than those of the training is refused."""
    check: Check = "fallback"
    """The consequence where the data speak against the image. "fallback" also gives l1-wavelet its share in images that
    are not doubted; see `mrnets.trust.mixed`."""


USUAL_CAUTION = Caution()

_NAMES = {
    "residual": "TrustResidual",
    "prediction": "TrustPredictionError",
    "reference": "TrustReferenceError",
    "share": "TrustReferenceShare",
}
_UNIT = "TrustUnit"
MEASURES = (*_NAMES.values(), _UNIT)
"""The names in the meta data of images, in the order of `numbers`."""

_logger = logging.getLogger(__name__)


def numbers(trust: Trust | None) -> dict[str, str]:
    """Return the measures for the meta data of images, and their unit; empty where nothing was measured."""
    measured = {name: None if trust is None else getattr(trust, field) for field, name in _NAMES.items()}
    found = {name: format(value, ".4g") for name, value in measured.items() if value is not None}
    unit = "relative" if trust is None or trust.residual is None else "standard deviations of the noise"
    return {**found, _UNIT: unit} if found else {}


def doubted(frame: Frame, estimate: Estimate, name: str) -> tuple[Frame, str]:
    """Return the frame with the measures of its `estimate` by the network `name`, and what speaks against that.

    Slices count together. The second is a sentence, or empty. The measures go to the log."""
    from mrnets.trust import doubt, together

    trust = together(estimate.trust)
    if trust is None:
        return replace(frame, trust=None), ""
    _logger.info("%s: %s", name, ", ".join(f"{key} {value}" for key, value in numbers(trust).items()))
    reason = doubt(trust)
    return replace(frame, trust=trust), f"the network {name} is not to be trusted: {reason}" if reason else ""
