"""Chains by their names."""

from xml.etree.ElementTree import tostring

import pytest

from gadgets.chain import Chain
from gadgets.hosts.library import find, folder, shipped
from mrnets.errors import InputError
from mrnets.mrd.xml import parse_xml


def test_shipped_chains_are_found_by_name():
    assert shipped("varnet") == shipped("varnet.xml")
    assert find("varnet")[1] == "chain varnet.xml"
    assert find(str(folder() / "varnet.xml"))[0] == shipped("varnet")[0]
    with pytest.raises(InputError, match=r"There is no chain file nowhere/varnet\.xml"):
        find("nowhere/varnet.xml")


@pytest.mark.parametrize(
    "name", ["../varnet", "/varnet.xml", "..", ".", "", "varnet\0", "sub/varnet", "\\varnet", "." * 300]
)
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    (tmp_path / "varnet.xml").write_text("secret")
    (tmp_path / "chains" / "sub").mkdir(parents=True)
    (tmp_path / "chains" / "sub" / "varnet.xml").write_text("secret")
    with pytest.raises(InputError, match="There is no chain"):
        shipped(name, tmp_path / "chains")


@pytest.mark.parametrize("path", sorted(folder().glob("*.xml")), ids=lambda path: path.name)
def test_the_chains_that_ship_are_right(path):
    text = path.read_text()
    root = parse_xml(text, "chain")
    configuration = root.find("stream/external/configuration")
    chain = Chain.of(tuple(Chain.parse(tostring(configuration)).stages))
    assert chain.stages[-1].name == ("retrieve" if path.stem == "retrieve" else "images")
    stock = root.findall("stream/gadget")
    assert bool(stock) == ("buffered" in path.name)
    if stock:
        with pytest.raises(InputError, match="only on a Gadgetron server"):
            Chain.parse(text)
    else:
        assert Chain.parse(text).stages == chain.stages
    assert path.stem in text.partition("-->")[0], "the comment says how to start it"
