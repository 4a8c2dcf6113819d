"""The training data of a network, as the provenance of a weights file describes them."""

from __future__ import annotations

import json

import pytest

from mrnets import store
from mrnets.errors import InputError
from mrnets.seen import KEY, Seen


@pytest.mark.parametrize(
    "seen",
    [
        Seen(),
        Seen(anatomy=("brain",), matrix=(64, 256)),
        Seen(contrasts=("t1", "pd"), masks=("poisson2d",), field_strength=(1.5, 3.0), snr=(10, 3000), coils=(4, 32)),
    ],
)
def test_json_and_back(seen: Seen) -> None:
    values = json.loads(json.dumps(seen.to_json()))
    assert Seen.from_json(values) == seen
    assert set(values) == {name for name, value in vars(seen).items() if value}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"anatomie": ["brain"]}, "did you mean 'anatomy'"),
        ({"matrix": [64]}, "matrix must be"),
        ({"matrix": "large"}, "matrix must be"),
        ({"coils": [12, 4]}, "coils must be"),
        ({"snr": [0, 10]}, "snr must be"),
        ({"anatomy": "brain"}, "anatomy must be"),
        (["brain"], "expected fields"),
    ],
)
def test_what_cannot_be_is_one_sentence(values: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Seen.from_json(values)


@pytest.mark.parametrize("name", store.shipped())
def test_weights_that_ship_say_what_their_network_has_seen(name: str) -> None:
    seen = Seen.from_json(store.header(name)["provenance"][KEY])
    assert seen.anatomy == (() if name.endswith("_general") else ("brain",))
    if store.describe(store.header(name)["network"]).task != "segmentation":
        assert None not in (seen.matrix, seen.acceleration, seen.snr, seen.coils)
