"""A toy gadget and toy scans, for tests of what carries gadgets. Importing this makes `toy` nameable in chains."""

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import ismrmrd
import numpy as np

from gadgets.gadget import gadget
from gadgets.serialise import encode
from gadgets.speaker import lack, notes
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import ACQUISITION_HEADER, Item, Line, Lines, coalesce

HEADER = b"""<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding>
<encodedSpace><matrixSize><x>16</x><y>8</y><z>1</z></matrixSize>
<fieldOfView_mm><x>320</x><y>160</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>8</x><y>8</y><z>1</z></matrixSize>
<fieldOfView_mm><x>160</x><y>160</y><z>5</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>7</maximum><center>4</center>
</kspace_encoding_step_1></encodingLimits>
<trajectory>cartesian</trajectory>
</encoding>
</ismrmrdHeader>
"""

PIPELINE = '<execute name="gadgets" target="pipeline" type="python"/>'


def configuration(*gadgets: str) -> str:
    """The <configuration> of an external node."""
    return "<configuration>" + "".join(gadgets) + "</configuration>"


def stage(name: str, /, **properties: Any) -> str:
    inner = "".join(f'<property name="{key}" value="{value}"/>' for key, value in properties.items())
    return f'<gadget name="{name}">{inner}</gadget>'


def chain(*gadgets: str, execute: str = PIPELINE) -> str:
    """A whole chain of one external node."""
    node = f"<external>{execute}{configuration(*gadgets)}</external>"
    return f'<?xml version="1.0"?><configuration><version>2</version><stream>{node}</stream></configuration>'


def for_clients(items: Iterable[Item]) -> list[Item]:
    """What a client gets of them: Gadgetron's own aborts at a waveform, and loses the images after it."""
    return [item for item in items if not isinstance(item, ismrmrd.Waveform)]


@gadget
def toy(
    stream: Iterable[Item],
    header: Any,
    *,
    scale: float = 1.0,
    fail: Literal["no", "input", "bug"] = "no",
    after: int = 0,
    loud: bool = False,
    most: int = 100,
    says: str = "",
) -> Iterator[Item]:
    """An image of each run of imaging lines: their magnitudes, scaled. Fails, if asked to, after so many images."""
    made = 0
    if loud:
        print("print: toy", flush=True)
        os.system("echo system: toy")
    if says:
        yield says
    for item in stream:
        if not isinstance(item, Lines):
            yield item
            continue
        if made == most:
            continue
        if made == after and fail == "input":
            raise InputError("acquisition 7 is not to its taste.")
        if made == after and fail == "bug":
            raise ZeroDivisionError("toys break")
        pixels = np.abs(item.data).astype(np.float32) * np.float32(scale)
        image = ismrmrd.Image.from_array(pixels.transpose(1, 0, 2)[:, None], image_index=made + 1)
        image.meta = {"Made": "by a toy", "Größe": str(len(item))}
        made += 1
        yield image


@gadget
def noted(stream: Iterable[Item], header: Any, *, scale: float = 1.0, fail: bool = False) -> Iterator[Item]:
    """A toy whose images, and those that come in, have the notes of the scan as comments."""
    for item in toy(stream, header, scale=scale, fail="bug" if fail else "no"):
        if isinstance(item, ismrmrd.Image):
            item.meta = {"ImageComments": "; ".join(("a toy", *notes()))}
        yield item


@gadget
def lacking(stream: Iterable[Item], header: Any) -> Iterator[Item]:
    """A toy that says that the scan lacks something."""
    yield from noted(stream, header)
    lack("a slice is missing")


@gadget
def waiting_for(stream: Iterable[Item], header: Any, *, path: str) -> Iterator[Item]:
    """A toy that waits for a file, up to a minute, before it passes the first item."""
    pause = threading.Event()
    for _ in range(6000):
        if os.path.exists(path):
            break
        pause.wait(0.01)
    yield from stream


for _name in ("toy", "noted", "lacking", "waiting_for"):
    sys.modules[f"gadgets.{_name}"] = sys.modules[__name__]


def acquisitions(
    lines: int, coils: int = 2, samples: int = 16, flags: tuple[int, ...] = (), seed: int = 0, **fields: Any
):
    """Acquisitions of random samples; the last of them has the flags."""
    rng = np.random.default_rng(seed)
    for n in range(lines):
        data = rng.standard_normal((coils, samples, 2)).astype(np.float32).view(np.complex64)[..., 0]
        acquisition = ismrmrd.Acquisition.from_array(data, scan_counter=n, **fields)
        acquisition.idx.kspace_encode_step_1 = n
        acquisition.position[0] = 1.5
        acquisition.acquisition_time_stamp = 10 * n + 10
        if n == lines - 1:
            acquisition.flags = sum(1 << (flag - 1) for flag in flags)
        yield acquisition


def waveform(time: int = 25) -> ismrmrd.Waveform:
    return ismrmrd.Waveform.from_array(np.arange(12, dtype=np.uint32).reshape(3, 4), time_stamp=time, waveform_id=2)


def scan() -> list[Item]:
    """A noise line, two slices with a waveform between the second and third line of the first."""
    noise = list(acquisitions(1, samples=8, flags=(Flag.IS_NOISE_MEASUREMENT,), seed=1))
    noise[0].acquisition_time_stamp = 1
    first = list(acquisitions(8, flags=(Flag.LAST_IN_SLICE,), seed=2))
    second = list(acquisitions(8, flags=(Flag.LAST_IN_SLICE, Flag.LAST_IN_MEASUREMENT), seed=3))
    for acquisition in second:
        acquisition.acquisition_time_stamp += 100
    return list(from_acquisitions([*noise, *first[:2], waveform(), *first[2:], *second]))


def lines(count: int = 3, coils: int = 2, samples: int = 4, dimensions: int = 0) -> Lines:
    headers = np.zeros(count, ACQUISITION_HEADER)
    headers["active_channels"], headers["number_of_samples"] = coils, samples
    headers["trajectory_dimensions"] = dimensions
    headers["scan_counter"] = np.arange(count)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((count, coils, 2 * samples)).astype(np.float32).view(np.complex64)
    path = rng.standard_normal((count, samples, dimensions)).astype(np.float32) if dimensions else None
    return Lines(headers, data, path)


def blob(items: Iterable[Any]) -> bytes:
    """The bytes of the items on the wire."""
    return b"".join(part for item in items for part in encode(item))


def from_acquisitions(stream: Iterable[Item]) -> Iterator[Item]:
    """`coalesce` for a stream in which acquisitions are `ismrmrd.Acquisition`; other items pass in order."""

    def line(item: Item) -> Item:
        if not isinstance(item, ismrmrd.Acquisition):
            return item

        def fill(data: Any, trajectory: Any) -> None:
            data[...] = item.data
            trajectory[...] = item.traj

        return Line(bytes(item.getHead()), fill)

    return coalesce(line(item) for item in stream)


def to_acquisitions(run: Lines) -> Iterator[ismrmrd.Acquisition]:
    """One `ismrmrd.Acquisition` for each line."""
    for n, header in enumerate(run.headers):
        yield ismrmrd.Acquisition(header.tobytes(), run.data[n], None if run.trajectory is None else run.trajectory[n])
