"""Images that do not say how their pixels lie to the directions in their headers; see `gadgets.geometry`.

Our images say it. Those of Gadgetron's own gadgets do not. Their pixels are in the order of ours, so those of Siemens'
data run against the directions.
"""

from __future__ import annotations

from dataclasses import replace

from gadgets.export.contents import Contents, Picture
from gadgets.geometry import AXES_REVERSED
from mrnets.mrd.encoding import vendor_of

__all__ = ["settled"]

UNSAID = f"{AXES_REVERSED} is missing, so the place in the patient is that of the image header and may be wrong"
"""For the comment of an image."""
_TOLD = (
    f"the images do not say by {AXES_REVERSED} whether their pixels run against the directions in their headers; they "
    "are exported as these say. Images by Gadgetron's own gadgets of data of a Siemens need --reversed-axes: without "
    "it slices lie turned by 180 degrees, and volumes mirrored."
)


def settled(contents: Contents, *, backwards: bool) -> tuple[Contents, str]:
    """Return images of which each says how its pixels lie, and a sentence if a user must know that some do not.

    backwards: pixels of images that do not say so run against the directions in their headers. Otherwise they run along
    these, which is in doubt for a Siemens and for a scanner that is not known. The comment of such images says so."""
    known = contents.header is not None and vendor_of(contents.header) != "siemens"
    silent = [AXES_REVERSED not in picture.meta for series in contents.series for picture in series.pictures]
    if not any(silent) or (known and not backwards):
        return contents, ""

    def said(picture: Picture) -> Picture:
        if AXES_REVERSED in picture.meta:
            return picture
        if backwards:
            return replace(picture, meta={**picture.meta, AXES_REVERSED: ["true"]})
        comments = "; ".join(filter(None, (picture.first("ImageComments"), UNSAID)))
        return replace(picture, meta={**picture.meta, "ImageComments": [comments]})

    series = tuple(replace(one, pictures=tuple(map(said, one.pictures))) for one in contents.series)
    return replace(contents, series=series), "" if backwards else _TOLD
