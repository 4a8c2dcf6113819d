"""The weights file: what is written comes back, and whatever else is given is refused with one sentence."""

from __future__ import annotations

import importlib
import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrnets import files, store, weightsfile
from mrnets.blocks.encoding import name_of
from mrnets.errors import InputError
from mrnets.traits import declared

OPTIONS = {"cascades": 2, "channels": 2, "pooling_layers": 1}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "trained.safetensors"
    store.save(
        path,
        store.create("varnet", **OPTIONS),
        name="varnet",
        options=OPTIONS,
        preparation={"coils": None, "crop": 0.9},
        units={"R2star": "1/s"},
        labels=["background", "lesion"],
        provenance={"command": "python -m training fit", "score": {"ssim": 0.9}},
    )
    return path


def rewrite(path: Path, **changes: Any) -> Path:
    """The same file with some fields of its header changed (None: removed)."""
    metadata, tensors = split(path)
    metadata.update(changes)
    return write(path, {key: value for key, value in metadata.items() if value is not None}, tensors)


def split(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["mrnets"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def write(path: Path, metadata: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"mrnets": json.dumps(metadata)})
    return path


def test_the_header_comes_back_whole(trained: Path) -> None:
    header = store.header(trained)
    assert header["version"] == 2
    assert header["network"] == "varnet"
    assert header["options"] == store.bind("varnet", **OPTIONS)
    assert header["preparation"] == {"coils": None, "crop": 0.9}
    assert header["units"] == {"R2star": "1/s"}
    assert header["labels"] == ["background", "lesion"]
    assert header["provenance"] == {"command": "python -m training fit", "score": {"ssim": 0.9}}
    assert header["tensors"]["dc_weight"] == (2,)


def test_a_loaded_network_can_be_trained_on(trained: Path) -> None:
    loaded = store.load(trained)
    assert loaded.preparation == {"coils": None, "crop": 0.9}
    assert loaded.metadata["labels"] == ["background", "lesion"]
    assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.network.parameters())


@pytest.mark.parametrize("name", store.names())
def test_traits_and_name_read_from_the_file_are_those_of_the_module(name: str) -> None:
    assert store.describe(name) == importlib.import_module(f"mrnets.nets.{name}").TRAITS
    with torch.device("meta"):
        assert name_of(store.create(name)) == name


@pytest.mark.parametrize("text", ["", "TRAITS = None", "TRAITS: int = 3", "TRAITS = Traits(task=name)"])
def test_a_network_without_literal_traits_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "foo.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"foo\.py declares no TRAITS|malformed"):
        declared(path)


def test_names_describe_and_header_need_no_torch(trained: Path) -> None:
    program = (
        "import sys; from mrnets import store;"
        f"names = store.names(); [store.describe(n) for n in names]; store.header({str(trained)!r});"
        "assert 'varnet' in names; assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_failed_write_leaves_the_old_file(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trained.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device"):
        store.save(trained, store.create("zerofilled"), name="zerofilled", options={}, preparation={})
    assert trained.read_bytes() == before
    assert list(trained.parent.iterdir()) == [trained]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": 3}, "has version 3, and this program reads versions 1 to 2"),
        ({"version": None}, "has version None"),
        ({"version": True}, "has version True"),
        ({"network": "vernet"}, "unknown network: 'vernet'; did you mean 'varnet'"),
        ({"network": ["varnet"]}, "network is not str"),
        ({"network": "__init__"}, "unknown network"),
        ({"network": "../store"}, "unknown network"),
        ({"options": {**OPTIONS, "chanels": 3}}, "'chanels'; did you mean 'channels'"),
        (
            {"options": {**OPTIONS, "num_cascades": 3}},
            "option cascades of network varnet is given twice, as 2 and as 3",
        ),
        ({"network": "atommic.cgsense"}, "unknown network: 'atommic.cgsense'"),
        ({"options": {**OPTIONS, "channels": "2"}}, "option channels of network varnet must be an integer, not '2'"),
        ({"options": {**OPTIONS, "channels": True}}, "option channels of network varnet must be an integer, not True"),
        ({"options": {**OPTIONS, "channels": 3}}, "is torch.float32 .* and the network's is"),
        ({"options": {**OPTIONS, "cascades": 10**9}}, "cascades must be a whole number from 1 to 64"),
        ({"options": {**OPTIONS, "cascades": 3}}, "lacks the tensor 'unets.2"),
        ({"options": {**OPTIONS, "cascades": 1}}, "tensor 'unets.1.* that the network does not have"),
        ({"options": None}, "options is not dict"),
        ({"preparation": []}, "preparation is not dict"),
    ],
)
def test_a_wrong_header_is_refused(trained: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        store.load(rewrite(trained, **changes))
    assert "\n" not in str(error.value)
    assert str(trained) in str(error.value)


def test_an_option_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="option start_regularisation of network varnet must be a number, not nan"):
        store.create("varnet", start_regularisation=float("nan"))


def _of_version_1(path: Path, **changes: Any) -> Path:
    """The file as version 1 wrote it, with its names of the options and those that are ATOMMIC's now."""
    options = {"num_cascades": 2, "channels": 2, "pooling_layers": 1, "padding": None, "combination": "sense"}
    return rewrite(path, version=1, options={**options, "sens_net": False, **changes})


def test_a_file_of_version_1_is_the_same_network(trained: Path) -> None:
    want = store.load(trained)
    got = store.load(_of_version_1(trained))
    assert got.name == "varnet"
    assert got.options == want.options
    assert store.header(trained)["options"]["cascades"] == 2
    assert all(torch.equal(one, got.network.state_dict()[key]) for key, one in want.network.state_dict().items())


def test_a_file_of_version_1_with_atommic_s_options_is_atommic_s_network(trained: Path) -> None:
    got = store.load(_of_version_1(trained, padding=11))
    assert got.name == "atommic.varnet"
    assert got.options == store.bind("atommic.varnet", **OPTIONS, padding=11)
    again = trained.with_name("again.safetensors")
    store.save(again, got.network, name=got.name, options=got.options, preparation={})
    assert store.load(again).options == got.options


@pytest.mark.parametrize("name", store.names())
def test_no_alias_is_the_name_of_an_option_and_each_stands_for_one(name: str) -> None:
    aliases, options = store.describe(name).aliases, store.bind(name)
    assert not set(aliases) & set(options)
    assert set(aliases.values()) <= set(options)
    for alias, option in aliases.items():
        assert store.bind(name, **{alias: options[option]}) == options


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_in_both_directions(trained: Path, value: float) -> None:
    metadata, tensors = split(trained)
    tensors["dc_weight"][1] = value
    with pytest.raises(InputError, match="'dc_weight' has values that are not finite"):
        store.load(write(trained, metadata, tensors))
    network = store.create("varnet", **OPTIONS)
    network.load_state_dict(tensors)
    with pytest.raises(InputError, match="'dc_weight' has values that are not finite"):
        store.save(trained, network, name="varnet", options=OPTIONS, preparation={})


def test_weights_of_another_type_are_refused(trained: Path) -> None:
    metadata, tensors = split(trained)
    tensors["dc_weight"] = tensors["dc_weight"].half()
    with pytest.raises(InputError, match=r"'dc_weight' is torch\.float16"):
        store.load(write(trained, metadata, tensors))


def test_options_that_are_not_the_network_s_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot save"):
        store.save(
            tmp_path / "x.safetensors", store.create("varnet", **OPTIONS), name="varnet", options={}, preparation={}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [{"x": {1, 2}}, {"x": float("nan")}])
def test_a_header_that_is_not_json_is_not_saved(tmp_path: Path, value: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is not JSON"):
        store.save(
            tmp_path / "x.safetensors",
            store.create("zerofilled"),
            name="zerofilled",
            options={},
            preparation={},
            provenance=value,
        )


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(trained: Path, kept: int) -> None:
    trained.write_bytes(trained.read_bytes()[:kept])
    with pytest.raises(InputError, match="truncated"):
        store.load(trained)


def test_a_file_with_something_after_its_end_is_refused(trained: Path) -> None:
    trained.write_bytes(trained.read_bytes() + b"\0")
    with pytest.raises(InputError, match="truncated or damaged"):
        store.load(trained)


@pytest.mark.parametrize("length", [0x3080, 0x4B50])
def test_a_header_of_a_length_that_looks_like_a_pickle_is_none(trained: Path, length: int) -> None:
    """Its lowest byte is that with which pickles begin, or its lowest two are those of a zip."""
    content = trained.read_bytes()
    (old,) = struct.unpack("<Q", content[:8])
    assert old < length
    trained.write_bytes(struct.pack("<Q", length) + content[8 : 8 + old].ljust(length) + content[8 + old :])
    assert store.load(trained).name == "varnet"


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for content in (pickle.dumps({"a": 1}), b"PK\x03\x04 a zip as of torch.save"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is a pickled file"):
            store.load(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="not a weights file of this program"):
        store.load(tmp_path / "foreign.safetensors")


def test_absent_files_and_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"cannot read .*absent\.safetensors: No such file"):
        store.load(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        store.load(tmp_path)
    monkeypatch.setattr(weightsfile, "_WEIGHTS", tmp_path)
    store.save(
        tmp_path / "floor.safetensors", store.create("zerofilled"), name="zerofilled", options={}, preparation={}
    )
    with pytest.raises(InputError, match="one of those that ship: floor"):
        store.load("varnet_brian")
    assert store.load("floor").name == "zerofilled"


def test_an_unusable_device_is_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="device 'quantum' cannot be used"):
        store.load(trained, device="quantum")


def _file(text: bytes, tail: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + tail


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_ours = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from([1, 1, 2, 2, 3, None]),
        "network": st.sampled_from(["varnet", "zerofilled", ""]) | _json,
        "options": st.dictionaries(st.sampled_from(["channels", "cascades", "num_cascades", "padding", "x"]), _json)
        | _json,
        "preparation": st.just({}) | _json,
        "units": st.just({}) | _json,
        "labels": st.just([]) | _json,
        "provenance": st.just({}) | _json,
    },
)
_entry = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "X"]) | _json,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | _json,
        "data_offsets": st.lists(st.integers(-1, 8), min_size=1, max_size=3) | _json,
    }
)


@given(
    st.binary(max_size=64)
    | st.binary(max_size=64).map(_file)
    | _json.map(lambda value: _file(json.dumps(value).encode()))
    | st.builds(
        lambda ours, tensors, tail: _file(
            json.dumps({**tensors, "__metadata__": {"mrnets": json.dumps(ours)}}).encode(), tail
        ),
        _ours,
        st.dictionaries(st.sampled_from(["dc_weight", "a", ""]), _entry | _json, max_size=2),
        st.binary(max_size=8),
    )
    | st.just(_file(b"[" * 100_000))
    | st.just(_file(b'{"a": ' + b"9" * 10_000 + b"}"))
)
def test_any_bytes_give_a_network_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(content)
    try:
        sentence = store.load(path).name
    except InputError as error:
        sentence = str(error)
    assert "\n" not in sentence


@pytest.mark.parametrize("name", weightsfile.shipped())
def test_weights_that_ship_carry_their_checksum(name: str) -> None:
    assert len(store.header(name)["checksum"]) == 64
    store.load(name)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_a_tensor_is_refused(trained: Path, bit: int) -> None:
    content = bytearray(trained.read_bytes())
    content[-101] ^= 1 << bit
    trained.write_bytes(content)
    with pytest.raises(InputError, match=r"trained.safetensors is damaged: its tensors do not have the checksum"):
        store.load(trained)


def test_a_file_without_checksum_is_loaded(trained: Path) -> None:
    expected = store.load(trained).network.state_dict()
    found = store.load(rewrite(trained, checksum=None)).network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
