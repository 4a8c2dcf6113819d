"""In every host, notes on an image stand in its comment, and missing data of a scan are an error after its images."""

import ismrmrd
import pytest
from ismrmrd.xsd import ToXML

from gadgets.__main__ import main
from gadgets.imagefiles import read_images
from gadgets.messages import Error
from gadgets.speaker import IncompleteError
from mrnets.mrd.files import write_scan
from tests.gadgets import synthetic
from tests.gadgets.test_bad_headers import (
    HEADER,
    LINES,
    STAGES,
    through_external,
    through_pipe,
    through_replay,
    through_serve,
)
from tests.gadgets.toys import chain, stage

SPACE = synthetic.encoding((16, 12, 1), mode="embedded", limits={"slice": (0, 1, 0)})
ANNOUNCES_TWO = ToXML(synthetic.header(SPACE)).encode()
LACKS = "sort: the scan ended before what its header announces: slice 1 did not come"


def test_a_client_of_the_server_gets_the_image_and_is_told(tmp_path):
    image, text = through_serve(ANNOUNCES_TWO, tmp_path)
    assert image.data.size
    assert text.startswith(f"[gadgets] ERROR: {LACKS}")


def test_gadgetron_gets_the_image_and_is_told(tmp_path):
    image, error = through_external(ANNOUNCES_TWO, tmp_path)
    assert image.data.size
    assert isinstance(error, Error)
    assert error.text.startswith(LACKS)


def test_a_pipe_fails(tmp_path):
    with pytest.raises(IncompleteError, match=LACKS):
        through_pipe(ANNOUNCES_TWO, tmp_path)


@pytest.mark.parametrize(("settings", "status"), [([], 1), (["--set", "sort.incomplete=warn"], 0)])
def test_replay_writes_the_images_and_ends_with_1(tmp_path, monkeypatch, capsys, settings, status):
    monkeypatch.chdir(tmp_path)
    write_scan("scan.h5", ANNOUNCES_TWO, [LINES])
    (tmp_path / "chain.xml").write_text(chain(STAGES))
    assert main(["replay", "scan.h5", "-c", "chain.xml", "-o", "images.h5", *settings]) == status
    assert [len(series) for _, series in read_images("images.h5")] == [1]
    assert (LACKS in capsys.readouterr().err) == bool(status)


NOISY = stage("noise") + STAGES


@pytest.mark.parametrize("through", [through_serve, through_external, through_pipe, through_replay])
def test_a_warning_stands_in_the_comment(tmp_path, monkeypatch, through):
    """The chain has a noise gadget, and the scan no noise measurement."""
    monkeypatch.setattr("tests.gadgets.test_bad_headers.STAGES", NOISY)
    (image,) = through(HEADER, tmp_path)
    comment = ismrmrd.Meta.deserialize(image.attribute_string)["ImageComments"]
    assert "no noise measurement before the first imaging line; data are not prewhitened" in comment
