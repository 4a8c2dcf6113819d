from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gadgets.images import images
from gadgets.neighbours import with_neighbours
from gadgets.network import network
from mrnets.contract import Estimate
from mrnets.errors import InputError
from tests.gadgets.frames import SIZE, frames, header, volume
from tests.gadgets.networks import reconstructed, save

pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


def test_coil_maps_wait_with_their_slices(monkeypatch):
    """Two slices with maps fit, and the third does not, though its k-space would."""
    scan = [replace(one, raw=replace(one.raw, sens=one.raw.kspace)) for one in frames(3)]
    monkeypatch.setattr("gadgets.neighbours.usual_memory", lambda share: 5 * scan[0].raw.kspace.nbytes / 2**30)
    assert list(with_neighbours(scan[:2], header(), lambda slices: slices)) == scan[:2]
    with pytest.raises(InputError, match="of slices wait for their neighbours"):
        list(with_neighbours(scan, header(), lambda slices: slices))


def test_slices_wait_for_their_neighbours_and_not_without_end(monkeypatch):
    """Three slices fit, and the fourth does not."""
    scan = frames(4)
    room = 3.5 * scan[0].raw.kspace.nbytes / 2**30
    monkeypatch.setattr("gadgets.neighbours.usual_memory", lambda share: room)
    assert list(with_neighbours(scan[:3], header(), lambda slices: slices)) == scan[:3]
    with pytest.raises(InputError, match="of slices wait for their neighbours"):
        list(with_neighbours(scan, header(), lambda slices: slices))


class TestNeighbours:
    @pytest.fixture
    def seen(self):
        return []

    @pytest.fixture
    def weights(self, tmp_path, instead, seen):
        options = {"contrasts": 1, "classes": 2}
        path = save(tmp_path / "u.safetensors", "unet3d", options=options, slices=3, normalisation="none")

        def forward(scan):
            seen.append(scan.image)
            return Estimate(logits=torch.cat([-scan.image, scan.image], dim=1))

        return instead(path, forward)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
    @pytest.mark.parametrize("announced", [None, 3])
    @pytest.mark.parametrize("batch", [1, 2])
    def test_slices_lie_side_by_side_in_space(self, weights, seen, order, announced, batch):
        before = reconstructed(3)  # brightness 1, 2, 3
        made = header()
        if announced:
            made.encoding[0].encodingLimits.slice.maximum = announced - 1
        after = list(network(["text", *(before[n] for n in order)], made, weights=weights, batch=batch))
        assert after.pop(0) == "text"
        stack = torch.cat([frame.estimate.image for frame in before])[:, 0].abs()
        expected = torch.stack([stack[[0, 0, 1]], stack[[0, 1, 2]], stack[[1, 2, 2]]])[:, None]
        torch.testing.assert_close(torch.cat(seen), expected)
        assert [int(frame.headers[0, 0]["idx"]["slice"]) for frame in after] == [0, 1, 2]
        for frame, image in zip(after, stack, strict=True):
            torch.testing.assert_close(frame.estimate.logits[0, 1], image)

    def test_repetitions_are_kept_apart(self, weights, seen):
        made = header()
        made.encoding[0].encodingLimits.slice.maximum = 1
        scan = [*reconstructed(2), *reconstructed(2, repetition=1)]
        stream = network(iter(scan), made, weights=weights)
        first = [next(stream), next(stream)]
        assert len(seen) == 2, "the first repetition does not wait for the second"
        assert len([*first, *stream]) == 4

    def test_echoes_that_are_frames_of_their_own_are_no_neighbours(self, weights, seen):
        list(network([*reconstructed(2), *reconstructed(2, contrast=1)], header(), weights=weights))
        bright = torch.cat(seen)[:, 0].amax(dim=(-2, -1))
        torch.testing.assert_close(bright / bright[0, 0], torch.tensor([[1.0, 1, 2], [1, 2, 2]] * 2), atol=0.05, rtol=0)

    def test_a_slice_alone_says_so(self, weights):
        (frame,) = network(reconstructed(), header(), weights=weights)
        assert "3 neighbouring slices; 1 came" in frame.notes[-1]

    def test_positions_of_a_volume(self, weights, seen):
        (before,) = network([volume()], header(), name="cgsense", batch=16)
        (frame,) = network([before], header(), weights=weights, batch=5)
        stack = before.estimate.image[:, 0].abs()
        torch.testing.assert_close(torch.cat(seen)[7, 0], stack[6:9])
        torch.testing.assert_close(torch.cat(seen)[15, 0], stack[[14, 15, 15]])
        torch.testing.assert_close(frame.estimate.logits[:, 1], stack)
        _, segmentation = images([frame], header())
        assert segmentation.data.shape[1:] == (SIZE, SIZE, 16)
