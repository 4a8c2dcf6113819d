"""Reading and sorting a scan, against plain h5py reading of the same bytes.

    python tests/benchmarks/bench_stream.py [--mebibytes 1024] [--coils 32] [--folder FOLDER]

A 2-D multi-slice scan is made on the fly. "read" makes Lines of the file's records, in one copy. "sort" makes k-space
too, also with removal of the readout oversampling, which takes two Fourier transforms. "wire" reads the same scan as a
stream of messages in memory. Each figure is the best of the repetitions, in one run.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import ismrmrd
import numpy as np

from gadgets.messages import Close
from gadgets.protocol import Incoming, State
from gadgets.serialise import encode
from gadgets.sort import sort
from mrnets.mrd.files import open_scan, write_scan
from mrnets.mrd.flags import Flag
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import ACQUISITION_HEADER, Lines

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


def read_and_sort(path: Path, header: str) -> None:
    with open_scan(path) as scan:
        for _ in sort(scan.items(), read_header(header).header):
            pass


def dataset(path: Path, lines: int) -> None:
    """ismrmrd's own reader, line by line."""
    with ismrmrd.Dataset(path, mode="r") as scan:
        for number in range(lines):
            scan.read_acquisition(number)


def seconds(work: Callable[[], object], repetitions: int) -> float:
    best = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


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
        times = {
            "h5py, plain": seconds(lambda: plain(path), args.repetitions),
            "read": seconds(lambda: read(path), args.repetitions),
            "read, sort": seconds(lambda: read_and_sort(path, HEADER), args.repetitions),
            "read, sort, less oversampling": seconds(lambda: read_and_sort(path, OVERSAMPLED), args.repetitions),
        }
        few = 64  # it takes long
        times["ismrmrd.Dataset"] = seconds(lambda: dataset(path, few), 1) * count * ROWS / few
        few_slices = min(count, 4)
        stream = b"".join(part for item in [*slices(few_slices, args.coils), Close()] for part in encode(item))
        wired = seconds(lambda: list(Incoming(io.BytesIO(stream), State.ITEMS).items()), args.repetitions)
        times["wire, from memory"] = wired * count / few_slices
    for name, time_taken in times.items():
        ratio = time_taken / times["h5py, plain"]
        print(f"{name:32s} {time_taken:7.2f} s   {size / 2**20 / time_taken:7.0f} MiB/s   {ratio:6.2f} x plain h5py")


if __name__ == "__main__":
    main()
