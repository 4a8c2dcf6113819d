"""Images that are sent in: they leave as they came, with the labels that a segmentation network gives them."""

import ismrmrd
import numpy as np
import pytest
import torch

import gadgets.estimate as module_of_estimates
from gadgets.geometry import AXES_REVERSED
from gadgets.hosts.library import folder
from gadgets.hosts.rules import Rules
from gadgets.images import images
from gadgets.messages import Close, ConfigText, Header
from gadgets.network import network
from gadgets.noise import noise
from gadgets.received import annotated, header_for, with_frames
from gadgets.sort import sort
from mrnets.errors import InputError
from mrnets.mrd.header import read_header
from tests.gadgets.clients import served
from tests.gadgets.frames import SIZE, disc, frames, header, volume
from tests.gadgets.networks import LABELS, save
from tests.gadgets.toys import blob, chain, stage

pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


@pytest.fixture
def segmenter(tmp_path):
    return save(tmp_path / "segmenter.safetensors", "segunet", LABELS, options={"contrasts": 1, "classes": 3})


def picture(pixels, **fields):
    """An image of pixels (z, y, x)."""
    image = ismrmrd.Image.from_array(np.ascontiguousarray(pixels)[None], transpose=False)
    fields = {"image_type": ismrmrd.IMTYPE_MAGNITUDE, "image_series_index": 4, **fields}
    for name, value in {"field_of_view": (64.0, 64.0, 5.0), "position": (1.0, 2.0, 3.0), **fields}.items():
        setattr(image, name, value)
    image.attribute_string = ismrmrd.Meta({"ImageComments": "theirs"}).serialize()
    return image


def slices(count, **fields):
    return [picture((n + 1) * np.abs(disc())[None].astype(np.float32), slice=n, **fields) for n in range(count)]


def segmented(sent, weights, **options):
    """Output of the last gadgets of a chain for images; its first gadgets let images pass."""
    passed = sort(noise(sent, header()), header())
    return list(images(network(passed, header(), weights=weights, **options), header()))


def test_images_leave_as_they_came_and_labels_come_with_them(segmenter):
    sent = slices(3)
    out = segmented(sent, segmenter)
    assert blob(out[::2]) == blob(slices(3))
    for n, labels in enumerate(out[1::2]):
        assert labels.data.dtype == np.uint16
        assert labels.data.shape == sent[n].data.shape
        assert (labels.image_series_index, labels.image_index, labels.slice) == (5, n + 1, n)
        assert list(labels.position) == [1, 2, 3]
        assert list(labels.field_of_view) == [64, 64, 5]
        assert labels.meta["GADGETRON_DataRole"] == "Segmentation"
        assert labels.meta["Labels"] == [f"{n} {label}" for n, label in enumerate(LABELS)]


def test_the_labels_are_those_of_the_same_image_in_the_chain(segmenter):
    (made,) = network(frames(), header(), name="cgsense")
    (_, expected) = images(network([made], header(), weights=segmenter), header())
    pixels = np.asarray(made.estimate.image[0, :1])
    (_, labels) = segmented([picture(pixels, image_type=ismrmrd.IMTYPE_COMPLEX)], segmenter)
    np.testing.assert_array_equal(labels.data, expected.data)


def test_a_volume_is_segmented_in_the_same_planes(segmenter):
    (made,) = network([volume()], header(), name="zerofilled")
    (expected,) = network([made], header(), weights=segmenter)
    pixels = np.moveaxis(np.asarray(made.estimate.image[:, 0]), 0, -1)  # (z, y, x)
    (frame,) = with_frames([picture(pixels, image_type=ismrmrd.IMTYPE_COMPLEX)], 1)
    (found,) = network([frame], header(), weights=segmenter)
    assert torch.equal(found.estimate.logits, expected.estimate.logits)
    image, labels = images([found], header())
    assert labels.data.shape == image.data.shape == (1, SIZE, SIZE, 16)


def test_contrasts_of_a_slice_belong_together(tmp_path):
    weights = save(tmp_path / "brats.safetensors", "segunet", LABELS, options={"contrasts": 4, "classes": 3})
    sent = [image for c in (2, 0, 3, 1) for image in slices(2, contrast=c)]
    out = segmented(sent, weights)
    assert [image.contrast for image in out if image.image_series_index == 4] == [0, 1, 2, 3] * 2
    assert len([image for image in out if image.image_series_index == 5]) == 2


NAMES = ("T1 POST", "ax t1n", "t2_FLAIR", "T2w TSE")


def of_series(name: str, number: int, count: int = 2, **fields):
    """A series as a scanner sends it: of one contrast, and with a name."""
    made = slices(count, image_series_index=number, **fields)
    for image in made:
        image.attribute_string = ismrmrd.Meta({"SequenceDescription": name}).serialize()
    return made


@pytest.fixture
def brats(tmp_path):
    return save(tmp_path / "brats.safetensors", "segunet", LABELS, options={"contrasts": 4, "classes": 3})


def test_series_are_contrasts_by_their_names(brats, monkeypatch):
    """In whatever order they come; the network gets them in its own."""
    seen = []
    segmented_before = module_of_estimates._segmented
    monkeypatch.setattr(
        module_of_estimates, "_segmented", lambda frames, how: seen.extend(frames) or segmented_before(frames, how)
    )
    series = {name: of_series(name, 3 + n) for n, name in enumerate(NAMES)}
    sent = [image for name in (NAMES[2], NAMES[0], NAMES[3], NAMES[1]) for image in series[name]]
    other, unknown = of_series("localizer DWI", 9), of_series("AAHead_Scout", 10)
    out = segmented([*other, *unknown, *sent], brats, contrasts="t1c, t1, flair, t2")
    assert blob(out[:2]) == blob(of_series("localizer DWI", 9))
    assert blob(out[-2:]) == blob(of_series("AAHead_Scout", 10))
    labels = [image for image in out if ismrmrd.Meta.deserialize(image.attribute_string).get("Labels")]
    assert [(image.slice, image.image_series_index) for image in labels] == [(0, 7), (1, 7)]
    assert [[image.image_series_index for image in frame.sent] for frame in seen] == [[3, 4, 5, 6]] * 2


def test_the_weights_file_names_the_contrasts(tmp_path):
    provenance = {"contrasts": ["t1c", "t1n", "t2f", "t2w"]}
    options = {"contrasts": 4, "classes": 3}
    weights = save(tmp_path / "w.safetensors", "segunet", LABELS, options=options, provenance=provenance)
    sent = [image for n, name in enumerate(NAMES) for image in of_series(name, n, 1)]
    assert len(segmented(sent, weights)) == 5
    with pytest.raises(InputError, match="trained on the contrasts t1c, t1, flair, t2, and the chain gives t1, t1c"):
        segmented(sent, weights, contrasts="t1, t1c, flair, t2")


def test_images_without_names_go_by_their_counters(brats):
    sent = [image for c in (2, 0, 3, 1) for image in slices(1, contrast=c)]
    *images_, labels = segmented(sent, brats, contrasts="t1c, t1, flair, t2")
    assert len(images_) == 4
    told = "contrasts without known names are taken for t1c, t1, flair, t2 by their counters"
    assert all(told in image.meta["ImageComments"] for image in (*images_, labels))


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (
            NAMES[:3],
            r"1 slice without all contrasts: 3 came \(t1c, t1, flair\), and the network takes 4: t1c, t1, flair, t2",
        ),
        ((*NAMES[:3], "t1n again"), "do not fit each other: "),
        ((*NAMES[:3], "t2 elsewhere"), "do not fit each other"),
    ],
)
def test_series_that_are_no_set_of_contrasts_are_one_sentence(brats, series, words):
    sent = [
        image
        for n, name in enumerate(series)
        for image in of_series(name, n, 1, position=(1.0, 2.0, 3.0 + ("elsewhere" in name)))
    ]
    with pytest.raises(InputError, match=words):
        segmented(sent, brats, contrasts="t1c, t1, flair, t2")


def test_contrasts_whose_pixels_run_the_other_way_do_not_fit(brats):
    """Such as an image of Siemens' raw data, and the scanner's own image of the same slice."""
    sent = [image for n, name in enumerate(NAMES) for image in of_series(name, n, 1)]
    sent[2].meta[AXES_REVERSED] = "true"
    with pytest.raises(InputError, match="do not fit each other"):
        segmented(sent, brats, contrasts="t1c, t1, flair, t2")
    for image in sent:
        image.meta[AXES_REVERSED] = "true"
    labels = segmented(sent, brats, contrasts="t1c, t1, flair, t2")[-1]
    assert labels.meta[AXES_REVERSED] == "true"


def test_a_number_of_names_that_is_not_the_network_s_is_refused(brats):
    with pytest.raises(InputError, match="brats takes 4 contrasts; these are named: adc, dwi"):
        segmented(slices(1), brats, contrasts="adc, dwi")


def test_there_are_no_labels_where_all_contrasts_are_0(segmenter):
    (_, labels) = segmented(slices(1), segmenter)
    outside = slices(1)[0].data == 0
    assert outside.any()
    assert not labels.data[outside].any()


@pytest.mark.parametrize("change", ["phase", "role", "channels"])
def test_images_that_do_not_show_the_object_pass(segmenter, change):
    (image,) = slices(1)
    if change == "phase":
        image.image_type = ismrmrd.IMTYPE_PHASE
    elif change == "role":
        image.attribute_string = ismrmrd.Meta({"GADGETRON_DataRole": "Segmentation"}).serialize()
    else:
        image = ismrmrd.Image.from_array(np.ones((3, 1, 8, 8), np.float32), transpose=False)
    (out,) = segmented([image], segmenter)
    assert blob([out]) == blob([image])


@pytest.mark.parametrize("contrasts", [1, 4])
def test_faults_are_one_sentence(tmp_path, contrasts):
    weights = save(tmp_path / "s.safetensors", "segunet", LABELS, options={"contrasts": contrasts, "classes": 3})
    bad = slices(1, contrast=3)[0]
    bad.data[...] = np.nan
    faults = {
        1: [([bad], "slice 0 has values that are not finite")],
        4: [
            (slices(2), "2 slices without all contrasts: 1 came, and the network takes 4"),
            ([image for _ in range(4) for image in slices(1)], "4 images of slice 0 do not fit each other"),
            (
                [*(slices(1, contrast=c)[0] for c in range(3)), picture(np.ones((1, 8, 8), np.float32), contrast=3)],
                "do not fit each other",
            ),
        ],
    }
    for sent, words in faults[contrasts]:
        with pytest.raises(InputError, match=words):
            segmented(sent, weights)


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr("gadgets.received.MAX_WAITING", 10 * SIZE * SIZE)
    pairs = [image for n in range(4) for c in range(2) for image in [slices(n + 1, contrast=c)[-1]]]
    assert len(list(with_frames(pairs, 2))) == 4
    with pytest.raises(InputError, match="wait for other contrasts"):
        list(with_frames(slices(3), 2))


def test_a_failure_is_noted_on_the_image(segmenter, monkeypatch):
    monkeypatch.setattr("gadgets.estimate._segmented", lambda *_: 1 / 0)
    (image,) = segmented(slices(1), segmenter)
    assert image.meta["ImageComments"].startswith("theirs; FALLBACK: the network segmenter failed")
    np.testing.assert_array_equal(image.data, slices(1)[0].data)


@pytest.mark.parametrize("text", [b"Dummy XML header", header_for(slices(1)[0])], ids=["none", "header"])
def test_a_client_of_the_server_gets_labels(tmp_path, segmenter, text):
    stages = stage("sort"), stage("network", weights="segmenter"), stage("images")
    with served(Rules(tmp_path, weights=tmp_path)) as client:
        client.send(ConfigText(chain(*stages).encode()), Header(text), *slices(2), Close())
        received = client.receive()
    assert [image.image_series_index for image in received] == [4, 5, 4, 5]
    comment = ismrmrd.Meta.deserialize(received[1].attribute_string)["ImageComments"]
    assert ("no ISMRMRD header came" in comment) == (text == b"Dummy XML header")


def test_a_client_sends_a_series_for_each_contrast(tmp_path, brats):
    """The chain that ships, with weights that the operator has put beside it."""
    text = (folder() / "brats.xml").read_text()
    text = text.replace('<gadget name="network">', '<gadget name="network"><property name="weights" value="brats"/>')
    with served(Rules(tmp_path, weights=tmp_path)) as client:
        sent = [image for n, name in enumerate(NAMES) for image in of_series(name, n + 1)]
        client.send(ConfigText(text.encode()), Header(b"none"), *sent, Close())
        received = client.receive()
    assert sorted(image.image_series_index for image in received) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    labels = [image for image in received if image.image_series_index == 5]
    assert [ismrmrd.Meta.deserialize(image.attribute_string)["GADGETRON_DataRole"] for image in labels] == (
        ["Segmentation"] * 2
    )


def test_the_header_that_is_made_says_what_the_image_says():
    space = read_header(header_for(slices(1)[0])).header.encoding[0].reconSpace
    assert (space.matrixSize.x, space.matrixSize.y, space.matrixSize.z) == (SIZE, SIZE, 1)
    assert space.fieldOfView_mm.x == 64


def test_a_note_leaves_empty_meta_values_empty():
    """ismrmrd reads them as None from text, and writes that as a word."""
    image = ismrmrd.Image.from_array(np.ones((1, 1, 4, 4), np.float32), transpose=False)
    image.meta.update({"ImageComments": "", "patientID": ""})
    assert annotated(image, ["it is so"]).meta == {"ImageComments": "it is so", "patientID": ""}
