"""The operator's rules, and the limits of a client's chain."""

import os

import pytest

from gadgets.chain import Chain
from gadgets.hosts.rules import Rules, chain_of, set_by_client
from gadgets.limits import machine_memory
from gadgets.messages import ConfigFile, ConfigText
from mrnets import store
from mrnets.errors import InputError
from tests.gadgets.toys import chain, configuration, stage

SHIPPED = store.shipped()[0]


def asking(weights: str, form=chain) -> ConfigText:
    """The configuration of a client that names weights."""
    return ConfigText(form(stage("sort"), stage("network", weights=weights), stage("images")).encode())


def weights_of(made: Chain) -> str:
    return made.stages[1].properties["weights"]


@pytest.fixture
def place(tmp_path):
    """A folder of weights with a file, a folder, a pipe and a device's link in it, and secrets beside it."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "mine.safetensors").write_bytes(b"any")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "device.safetensors").symlink_to("/dev/null")
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize("form", [chain, configuration])
@pytest.mark.parametrize("name", ["mine", "mine.safetensors", " mine "])
def test_a_client_names_weights_of_the_operators_folder(place, name, form):
    made = chain_of(asking(name, form), Rules(weights=place))
    assert weights_of(made) == str(place / "mine.safetensors")


def test_a_client_names_weights_that_ship(place):
    assert weights_of(chain_of(asking(SHIPPED), Rules())) == SHIPPED
    assert weights_of(chain_of(asking(SHIPPED), Rules(weights=place))) == SHIPPED


def test_a_client_finds_nothing_else_and_cannot_tell_what_there_is(place):
    """One sentence for what is not there, for a folder, a pipe, a device, for files outside and for nonsense."""
    names = ["nobody", "folder", "pipe", "device", "../secret", "../secret.safetensors", "..", ".", "/", "/dev/tty"]
    names += [str(place / "mine.safetensors"), "./mine", "weights/mine", "/etc/passwd", "a" * 5000, "mine\0", ""]
    said = set()
    for name in names:
        if "\0" in name:
            continue
        with pytest.raises(InputError) as caught:
            chain_of(asking(name), Rules(weights=place))
        said.add(str(caught.value).replace(f'"{name[:80]}"', '""'))
    (sentence,) = said
    assert sentence == f'There are no weights ""; there are: {", ".join(sorted([*store.shipped(), "mine"]))}.'


def test_the_operators_own_chains_keep_their_paths(place):
    (place / "own.xml").write_bytes(asking("/opt/weights.safetensors").text)
    assert weights_of(chain_of(ConfigFile("own"), Rules(chains=place))) == "/opt/weights.safetensors"


def test_a_chain_of_the_operator_names_weights_of_the_folder(place):
    for name in ("mine", "nobody"):
        (place / f"{name}.xml").write_bytes(asking(name).text)
    rules = Rules(chains=place, weights=place)
    assert weights_of(chain_of(ConfigFile("mine"), rules)) == str(place / "mine.safetensors")
    assert weights_of(chain_of(ConfigFile("nobody"), rules)) == "nobody"


@pytest.mark.parametrize(("asked", "granted"), [({}, 2.0), ({"memory": 1.5}, 1.5), ({"memory": 64}, 2.0)])
def test_a_client_lowers_the_memory_and_never_raises_it(asked, granted):
    text = chain(stage("sort", **asked), stage("network", name="cgsense"), stage("images"))
    made = chain_of(ConfigText(text.encode()), Rules(memory=2.0))
    assert float(made.stages[0].properties["memory"]) == granted


@pytest.mark.parametrize(("said", "granted"), [({}, 2.0), ({"memory": "64"}, 64.0)])
def test_the_operators_own_chain_says_how_much_memory_it_takes(tmp_path, said, granted):
    text = chain(stage("sort", **said), stage("network", name="cgsense"), stage("images"))
    (tmp_path / "own.xml").write_text(text)
    made = chain_of(ConfigFile("own"), Rules(chains=tmp_path, memory=2.0))
    assert float(made.stages[0].properties["memory"]) == granted


def test_the_memory_of_the_machine_is_that_of_its_container(tmp_path):
    for name, text in {"max": "max\n", "low": "1048576\n", "high": str(2**60)}.items():
        (tmp_path / name).write_text(text)
    machine = machine_memory(())
    assert machine > 1 << 26
    assert machine_memory((tmp_path / "nowhere", tmp_path / "max", tmp_path / "high")) == machine
    assert machine_memory((tmp_path / "max", tmp_path / "low")) == 1 << 20


@pytest.mark.parametrize("options", ["iterations=1000000000", "iterations=1e9", "regularisation=0.1, iterations=1001"])
def test_a_client_cannot_ask_for_a_reconstruction_without_end(options):
    text = chain(stage("sort"), stage("network", name="cgsense", options=options), stage("images"))
    with pytest.raises(InputError, match="A client may set iterations of network to 1000 at most"):
        chain_of(ConfigText(text.encode()), Rules())
    with pytest.raises(InputError, match="A client may set iterations of network to 1000 at most"):
        set_by_client(chain_of(ConfigFile("cgsense"), Rules()), "network.options", options, Rules())


@pytest.mark.parametrize("threads", ["1", "65536"])
def test_a_client_does_not_set_the_threads_of_all_scans(threads):
    text = chain(stage("sort"), stage("network", name="cgsense", threads=threads), stage("images"))
    with pytest.raises(InputError, match=r"A client may not set network.threads: it concerns all scans"):
        chain_of(ConfigText(text.encode()), Rules())
    with pytest.raises(InputError, match=r"A client may not set network.threads: it concerns all scans"):
        set_by_client(chain_of(ConfigFile("cgsense"), Rules()), "network.threads", threads, Rules())
