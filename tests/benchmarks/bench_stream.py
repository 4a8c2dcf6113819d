"""Reading and sorting a scan, against plain h5py reading of the same bytes.

    python tests/benchmarks/bench_stream.py [--mebibytes 1024] [--coils 32] [--folder FOLDER]

A 2-D multi-slice scan is made on the fly. "read" makes Lines of the file's records, in one copy. "sort" makes k-space
too, also with removal of the readout oversampling, which takes two Fourier transforms. "wire" reads the same scan as a
stream of messages in memory. "whitened" goes through the noise gadget before. Each figure is the best of the
repetitions, which take turns, by the clock and by the processor. A busy machine changes the second one less.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from mrnets.commandline import settle

settle()  # as a command does, before NumPy loads

import h5py
import ismrmrd
import numpy as np

from gadgets.messages import Close
from gadgets.noise import noise
from gadgets.protocol import Incoming, State
from gadgets.serialise import encode
from gadgets.sort import sort
from mrnets.mrd.files import open_scan, write_scan
from mrnets.mrd.flags import Flag
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import ACQUISITION_HEADER, Lines
from mrnets.mrd.noise import Noise

SAMPLES, ROWS = 512, 256
HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>123000000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding>
<encodedSpace><matrixSize><x>512</x><y>256</y><z>1</z></matrixSize>
<fieldOfView_mm><x>512</x><y>256</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>512</x><y>256</y><z>1</z></matrixSize>
<fieldOfView_mm><x>512</x><y>256</y><z>5</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>255</maximum><center>128</center>
</kspace_encoding_step_1>
<average><minimum>0</minimum><maximum>0</maximum><center>0</center></average>
<contrast><minimum>0</minimum><maximum>0</maximum><center>0</center></contrast>
<segment><minimum>0</minimum><maximum>0</maximum><center>0</center></segment></encodingLimits>
<trajectory>cartesian</trajectory>
</encoding>
</ismrmrdHeader>"""
OVERSAMPLED = HEADER.replace("<reconSpace><matrixSize><x>512", "<reconSpace><matrixSize><x>256").replace(
    "<x>512</x><y>256</y><z>5</z></fieldOfView_mm></reconSpace>",
    "<x>256</x><y>256</y><z>5</z></fieldOfView_mm></reconSpace>",
)


def slices(count: int, coils: int) -> Iterator[Lines]:
    """Fully sampled slices."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((ROWS, coils, 2 * SAMPLES), np.float32).view(np.complex64)
    for number in range(count):
        headers = np.zeros(ROWS, ACQUISITION_HEADER)
        headers["number_of_samples"], headers["active_channels"], headers["center_sample"] = (
            SAMPLES,
            coils,
            SAMPLES // 2,
        )
        headers["version"], headers["sample_time_us"] = 1, 5.0
        headers["idx"]["kspace_encode_step_1"], headers["idx"]["slice"] = np.arange(ROWS), number
        headers["flags"][-1] = 1 << (Flag.LAST_IN_SLICE - 1)
        headers["read_dir"][:, 0] = headers["phase_dir"][:, 1] = headers["slice_dir"][:, 2] = 1
        yield Lines(headers, data)


def plain(path: Path) -> None:
    """Read all records in blocks, the least that any program must do."""
    with h5py.File(path, "r") as file:
        records = file["dataset/data"]
        for start in range(0, len(records), 256):
            records[start : start + 256]


def read(path: Path) -> None:
    with open_scan(path) as scan:
        for _ in scan.items():
            pass


def read_and_sort(path: Path, header: str, noisy: int = 0) -> None:
    """noisy: the number of coils of which the noise of another scan is known; 0: nothing is whitened."""
    parsed = read_header(header).header
    with open_scan(path) as scan:
        other = [Noise(np.eye(noisy, dtype=np.complex64), 5.0)] if noisy else []
        items = itertools.chain(other, scan.items())
        for _ in sort(noise(items, parsed, device="cpu") if noisy else items, parsed):
            pass


def dataset(path: Path, lines: int) -> None:
    """ismrmrd's own reader, line by line."""
    with ismrmrd.Dataset(path, mode="r") as scan:
        for number in range(lines):
            scan.read_acquisition(number)


def race(works: dict[str, Callable[[], object]], repetitions: int) -> dict[str, tuple[float, float]]:
    """Return the least seconds of each, by the clock and of the processor."""
    times: dict[str, tuple[float, float]] = {}
    for _ in range(repetitions):
        for name, work in works.items():
            clock, processor = time.perf_counter(), time.process_time()
            work()
            took = time.perf_counter() - clock, time.process_time() - processor
            clock, processor = times.get(name, took)
            times[name] = min(clock, took[0]), min(processor, took[1])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--coils", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--folder", help="where the scan is made (default: the system's temporary folder)")
    args = parser.parse_args()
    count = max(1, (args.mebibytes << 20) // (ROWS * args.coils * SAMPLES * 8))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "scan.h5"
        write_scan(path, HEADER, slices(count, args.coils))
        size = path.stat().st_size
        print(f"{count} slices of {ROWS} lines, {args.coils} coils of {SAMPLES} samples: {size / 2**20:.0f} MiB")
        plain(path)  # the file is in memory, for all of them
        stream = b"".join(part for item in [*slices(count, args.coils), Close()] for part in encode(item))
        works: dict[str, Callable[[], object]] = {
            "h5py, plain": lambda: plain(path),
            "read": lambda: read(path),
            "read, sort": lambda: read_and_sort(path, HEADER),
            "read, sort, less oversampling": lambda: read_and_sort(path, OVERSAMPLED),
            "read, whitened, sort": lambda: read_and_sort(path, HEADER, args.coils),
            "wire, from memory": lambda: deque(Incoming(io.BytesIO(stream), State.ITEMS).items(), 0),
        }
        times = race(works, args.repetitions)
        few = 64  # it takes long
        clock, processor = race({"": lambda: dataset(path, few)}, 1)[""]
        times["ismrmrd.Dataset"] = clock * count * ROWS / few, processor * count * ROWS / few
    plainly = times["h5py, plain"]
    for name, (clock, processor) in times.items():
        ratios = f"{clock / plainly[0]:6.2f} x plain h5py, {processor / plainly[1]:6.2f} x of the processor"
        print(f"{name:32s} {clock:7.2f} s   {size / 2**20 / clock:7.0f} MiB/s   {ratios}")


if __name__ == "__main__":
    main()
