"""The same raw data give the same `Raw`, bit for bit, through the gadgets' sort and through training's reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadgets.frame import Frame
from gadgets.sort import sort
from mrnets.contract import Raw
from mrnets.mrd.calibration import centre_block
from mrnets.mrd.files import open_scan, write_scan
from mrnets.mrd.flags import DOUBTFUL, Flag, bits
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Lines
from tests.gadgets import synthetic
from training.readers.ismrmrd import Reader
from training.split import Split

COILS, NX, NY, NZ = 3, 20, 16, 8
ONLY, BOTH = Flag.IS_PARALLEL_CALIBRATION, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING
CENTRE = range(NY // 2 - 3, NY // 2 + 3)


@dataclass(frozen=True)
class Case:
    """A header and the lines of one scan."""

    header: Any
    lines: Sequence[Lines]
    by_hand: Mapping[str, Any] = field(default_factory=dict)
    """Options of sort and of the reader."""


def kspace(rng: np.random.Generator, x: int = NX, y: int = NY, z: int = 1) -> Any:
    return synthetic.to_kspace(synthetic.coil_images(rng, COILS, y, x, z))


def header(matrix: Sequence[int] = (NX, NY, 1), te: Sequence[float] = (), **options: Any) -> Any:
    return synthetic.header(synthetic.encoding(matrix, **options), te=te, bandwidth=0.79)


def oversampled(matrix: Sequence[int], **options: Any) -> Any:
    """A header with twofold readout oversampling of `matrix`."""
    x, y, z = matrix
    fov = (4.0 * x, 2.0 * y, 2.0 * z)
    return header((2 * x, y, z), fov=fov, recon=matrix, recon_fov=(2.0 * x, *fov[1:]), **options)


def slices(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), slice=n) for n in range(3)]
    return Case(header(), [synthetic.interleave(*runs)])


def odd_and_oversampled(rng: np.random.Generator) -> Case:
    return Case(oversampled((NX + 1, NY - 1, 1)), [synthetic.lines(kspace(rng, 2 * NX + 2, NY - 1))])


def noise(rng: np.random.Generator) -> Case:
    samples = rng.standard_normal((12, COILS, 64)) + 1j * rng.standard_normal((12, COILS, 64))
    return Case(header(), [synthetic.noise_lines(samples, dwell=10.0), synthetic.lines(kspace(rng))])


def echoes(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), contrast=n, slice=s) for s in range(2) for n in range(3)]
    return Case(header(te=(2.0, 5.5, 8.0)), runs)


def volume(rng: np.random.Generator) -> Case:
    return Case(oversampled((NX, NY, NZ)), [synthetic.lines(kspace(rng, 2 * NX, NY, NZ))])


def volume_of_echoes(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng, NX, NY, NZ), contrast=n) for n in range(2)]
    return Case(header((NX, NY, NZ), te=(3.0, 7.0)), runs)


def embedded(rng: np.random.Generator) -> Case:
    space = kspace(rng)
    outer = [y for y in range(0, NY, 2) if y not in CENTRE]
    return Case(header(mode="embedded"), [synthetic.lines(space, outer), synthetic.lines(space, CENTRE, flags=[BOTH])])


def separate(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), CENTRE, flags=[ONLY], slice=n) for n in range(2)]
    runs += [synthetic.lines(kspace(rng), range(0, NY, 2), slice=n) for n in range(2)]
    return Case(header(mode="separate"), runs)


def separate_in_its_own_space(rng: np.random.Generator) -> Case:
    own = synthetic.encoding((NX, 8, 1), fov=(2.0 * NX, 3.0 * NY, 2.0), mode="separate")
    image = synthetic.encoding((NX, NY, 1), mode="separate")
    runs = [synthetic.lines(kspace(rng, NX, 8), flags=[ONLY], encoding_space=1)]
    runs += [synthetic.lines(kspace(rng), range(0, NY, 2))]
    return Case(synthetic.header(image, own), runs)


def separate_volume(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng, NX, NY, NZ), CENTRE, range(1, 7), flags=[ONLY])]
    runs += [synthetic.lines(kspace(rng, NX, NY, NZ), range(0, NY, 2))]
    return Case(header((NX, NY, NZ), mode="separate"), runs)


def separate_of_each_repetition(rng: np.random.Generator) -> Case:
    runs = []
    for repetition in range(2):
        runs.append(synthetic.lines(kspace(rng), CENTRE, flags=[ONLY], repetition=repetition))
        runs.append(synthetic.lines(kspace(rng), range(0, NY, 2), repetition=repetition))
    return Case(header(mode="separate"), runs)


def averages(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), average=n) for n in range(3)]
    return Case(header(), [*runs, synthetic.lines(kspace(rng), range(4, 9), average=3)])


def partial_fourier(rng: np.random.Generator) -> Case:
    limits = {"kspace_encoding_step_1": (0, 11, 4)}
    return Case(header(limits=limits), [synthetic.lines(kspace(rng), range(4, NY), y_shift=-4)])


def partial_echo(rng: np.random.Generator) -> Case:
    block = synthetic.lines(kspace(rng)[..., 6:], centre=NX // 2 - 6)
    return Case(header(), [block])


def reversed_lines(rng: np.random.Generator) -> Case:
    space = kspace(rng)
    forwards, backwards = range(0, NY, 2), range(1, NY, 2)
    return Case(header(), [synthetic.lines(space, forwards), synthetic.lines(space, backwards, reverse=True)])


def one_partition_of_four(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), slice=n) for n in range(2)]
    return Case(header((NX, NY, 4)), runs)


def lines_beyond_the_matrix(rng: np.random.Generator) -> Case:
    limits = {"kspace_encoding_step_1": (0, NY + 1, NY // 2 + 1)}
    return Case(header(limits=limits), [synthetic.lines(kspace(rng, NX, NY + 2))])


def flagged(lines: Lines, which: Sequence[int]) -> Lines:
    """Some of the lines with the flag of a surface coil correction."""
    headers = lines.headers.copy()
    headers["flags"][list(which)] |= np.uint64(bits(DOUBTFUL))
    return replace(lines, headers=headers)


def all_lines_doubtful(rng: np.random.Generator) -> Case:
    return Case(header(), [flagged(synthetic.lines(kspace(rng), slice=n), range(NY)) for n in range(2)])


def half_of_the_lines_doubtful(rng: np.random.Generator) -> Case:
    runs = [flagged(synthetic.lines(kspace(rng), contrast=n), range(n, NY, 2)) for n in range(2)]
    return Case(header(te=(2.0, 4.0)), runs)


def half_of_a_volume_doubtful(rng: np.random.Generator) -> Case:
    return Case(header((NX, NY, NZ)), [flagged(synthetic.lines(kspace(rng, NX, NY, NZ)), range(0, NY * NZ, 3))])


def surface_coil_correction(rng: np.random.Generator) -> Case:
    runs = [
        flagged(synthetic.lines(kspace(rng, NX, 4)[:2]), range(4)),
        flagged(synthetic.lines(kspace(rng)), range(NY)),
    ]
    return Case(header(), [*runs, synthetic.lines(kspace(rng))])


def later_repetitions_without_calibration(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), [*range(0, NY, 2), *CENTRE], repetition=0)]
    runs += [synthetic.lines(kspace(rng), range(n % 2, NY, 2), repetition=n) for n in (1, 2)]
    return Case(header(mode="embedded"), runs)


def time_interleaved(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), range(n % 3, NY, 3), repetition=n) for n in range(7)]
    return Case(header(mode="interleaved"), runs)


def time_interleaved_slices(rng: np.random.Generator) -> Case:
    runs = [
        synthetic.lines(kspace(rng), range(n % 2, NY, 2), repetition=n, slice=s) for n in range(4) for s in range(2)
    ]
    return Case(header(mode="interleaved"), runs)


def time_interleaved_volume(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng, NX, NY, NZ), range(n % 2, NY, 2), repetition=n) for n in range(3)]
    return Case(header((NX, NY, NZ), mode="interleaved"), runs)


def interleaved_and_never_complete(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), range(0, NY, 2), repetition=n) for n in range(2)]
    return Case(header(mode="interleaved"), runs)


def siemens(header: Any) -> Any:
    """The header with a Siemens scanner in it."""
    header.acquisitionSystemInformation.systemVendor = "SIEMENS"
    return header


def with_users(lines: Lines, line: int, partition: int = 0) -> Lines:
    """Lines that carry the centre in user counters, as siemens_to_ismrmrd writes it."""
    headers = lines.headers.copy()
    headers["idx"]["user"][:, 5:7] = line, partition
    return replace(lines, headers=headers)


def centre_in_user_counters(rng: np.random.Generator) -> Case:
    limits = {"kspace_encoding_step_1": (0, 11, 8)}
    return Case(siemens(header(limits=limits)), [with_users(synthetic.lines(kspace(rng), range(4, NY), y_shift=-4), 4)])


def centres_of_a_volume_in_user_counters(rng: np.random.Generator) -> Case:
    limits = {"kspace_encoding_step_1": (0, 11, 8), "kspace_encoding_step_2": (0, 5, 3)}
    block = synthetic.lines(kspace(rng, NX, NY, NZ), range(4, NY), range(2, NZ), y_shift=-4)
    block.headers["idx"]["kspace_encode_step_2"] -= 2
    return Case(siemens(header((NX, NY, NZ), limits=limits)), [with_users(block, 4, 2)])


def centre_beyond_the_limits(rng: np.random.Generator) -> Case:
    limits = {"kspace_encoding_step_1": (0, NY - 1, 65532), "kspace_encoding_step_2": (0, NZ - 1, 65532)}
    return Case(header((NX, NY, NZ), limits=limits), [synthetic.lines(kspace(rng, NX, NY, NZ))])


def reversed_lines_of_siemens(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), contrast=n, reverse=n == 1) for n in range(3)]
    runs[1].headers["center_sample"] = NX // 2
    return Case(siemens(header(te=(1.0, 2.0, 3.0))), runs)


def centres_by_hand(rng: np.random.Generator) -> Case:
    block = synthetic.lines(kspace(rng, NX, NY, NZ)[..., 4:], range(3, NY), range(2, NZ), centre=1)
    return Case(header((NX, NY, NZ)), [block], {"centre_line": 9, "centre_partition": 5, "centre_sample": NX // 2 - 4})


def dimensions_by_hand(rng: np.random.Generator) -> Case:
    return Case(header((NX, NY, 4)), [synthetic.lines(kspace(rng))], {"dimensions": "2d"})


def reversed_centre_by_hand(rng: np.random.Generator) -> Case:
    block = synthetic.lines(kspace(rng)[..., 5:], centre=NX // 2 - 5, reverse=True)
    block.headers["center_sample"] = NX // 2 - 5
    return Case(header(), [block], {"reversed_centre": "kept"})


def reversed_contrasts_by_hand(rng: np.random.Generator) -> Case:
    runs = [synthetic.lines(kspace(rng), contrast=n) for n in range(3)]
    return Case(header(te=(2.0, 5.5, 8.0)), runs, {"reversed_contrasts": "odd"})


def zero_lines(rng: np.random.Generator) -> Case:
    block = synthetic.lines(kspace(rng))
    block.data[[0, 5, NY - 1]] = 0
    return Case(header(), [block])


def echo_planar(rng: np.random.Generator, z: int = 1) -> Case:
    runs: list[Lines] = []
    for repetition in range(2):
        space = kspace(rng, z=z)
        for reverse in (False, True, False) if repetition == 0 else ():
            navigator = kspace(rng, z=z)
            runs.append(
                synthetic.lines(navigator, [NY // 2], [z // 2], flags=[Flag.IS_PHASECORR_DATA], reverse=reverse)
            )
        runs.append(synthetic.lines(space, range(0, NY, 2), repetition=repetition))
        runs.append(synthetic.lines(space, range(1, NY, 2), repetition=repetition, reverse=True))
    return Case(header((NX, NY, z), trajectory="epi"), runs)


def echo_planar_volume(rng: np.random.Generator) -> Case:
    return echo_planar(rng, NZ)


CASES: tuple[Callable[[np.random.Generator], Case], ...] = (
    slices,
    odd_and_oversampled,
    noise,
    echoes,
    volume,
    volume_of_echoes,
    embedded,
    separate,
    separate_in_its_own_space,
    separate_volume,
    separate_of_each_repetition,
    averages,
    partial_fourier,
    partial_echo,
    reversed_lines,
    one_partition_of_four,
    lines_beyond_the_matrix,
    all_lines_doubtful,
    half_of_the_lines_doubtful,
    half_of_a_volume_doubtful,
    surface_coil_correction,
    later_repetitions_without_calibration,
    time_interleaved,
    time_interleaved_slices,
    time_interleaved_volume,
    interleaved_and_never_complete,
    centre_in_user_counters,
    centres_of_a_volume_in_user_counters,
    centre_beyond_the_limits,
    reversed_lines_of_siemens,
    centres_by_hand,
    dimensions_by_hand,
    reversed_centre_by_hand,
    reversed_contrasts_by_hand,
    zero_lines,
    echo_planar,
    echo_planar_volume,
)


def sorted_by_the_gadget(path: Path, by_hand: Mapping[str, Any]) -> list[tuple[Raw, int]]:
    """The sort gadget's data of the file for each sample of the reader, and the index in the batch."""
    with open_scan(path) as scan:
        frames = [f for f in sort(scan.items(), read_header(scan.header).header, **by_hand) if isinstance(f, Frame)]
    frames.sort(key=lambda frame: [int(frame.headers[0, 0]["idx"][name]) for name in ("repetition", "slice")])
    return [(frame.raw, n) for frame in frames for n in range(len(frame.raw.kspace))]


def same(found: Any, expected: Any) -> bool:
    if found is None or expected is None:
        return found is expected
    return np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_both_paths_give_the_same(make: Callable[[np.random.Generator], Case], tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    case = make(rng)
    write_scan(tmp_path / "scan.h5", case.header.toXML().encode(), case.lines)
    expected = sorted_by_the_gadget(tmp_path / "scan.h5", case.by_hand)
    source = Reader(prospective=True, **case.by_hand).read(tmp_path, "train", Split())
    assert len(source) == len(expected) > 0
    for number, (raw, n) in enumerate(expected):
        found = source.take([number], rng).raw
        assert same(found.kspace, raw.kspace[n : n + 1])
        assert same(found.mask, raw.mask)
        for name in ("noise", "echo_times", "readout", "averages", "calibration_images", "whitened"):
            assert same(getattr(found, name), getattr(raw, name)), name
        block = found.calibration
        if block is None:  # the reader leaves the centre of the image's own lines to those who undersample
            block = centre_block(found.kspace.numpy(), found.mask.numpy()[0, 0, 0])
        assert same(block, None if raw.calibration is None else raw.calibration[n : n + 1])
