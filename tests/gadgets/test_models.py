"""Networks that a process keeps."""

from __future__ import annotations

import threading

import pytest
import torch

import gadgets.models as module
from mrnets import store
from mrnets.errors import InputError
from tests.gadgets.frames import frames, header
from tests.gadgets.networks import network, save_small

pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


class TestOnceForEachProcess:
    def test_loaded_once(self, weights, monkeypatch):
        loads = []
        load = store.load
        monkeypatch.setattr(store, "load", lambda *given: loads.append(given) or load(*given))
        for _ in range(3):
            list(network([], header(), weights=weights))
        assert len(loads) == 1

    def test_a_replaced_file_is_loaded_again(self, weights, tmp_path):
        one = next(network(frames(), header(), weights=weights)).estimate.image
        save_small(tmp_path / "other.safetensors", seed=1)
        (tmp_path / "other.safetensors").rename(weights)
        other = next(network(frames(), header(), weights=weights)).estimate.image
        assert not torch.equal(one, other)

    def test_one_model_for_a_file_however_it_is_spelt(self, weights, tmp_path, monkeypatch):
        loads = []
        load = store.load
        monkeypatch.setattr(store, "load", lambda *given: loads.append(given) or load(*given))
        (tmp_path / "folder").mkdir()
        (tmp_path / "link.safetensors").symlink_to(weights)
        for spelling in (weights, f"{tmp_path}/folder/../small.safetensors", f"{tmp_path}/link.safetensors"):
            list(network([], header(), weights=spelling))
        assert len(loads) == 1

    def test_those_used_longest_ago_go(self):
        made = []
        cache = module.Cache(2)
        for key in "abacab":
            cache.get(key, lambda key=key: made.append(key))
        assert made == list("abcb")

    def test_a_failure_is_not_kept(self):
        cache = module.Cache(2)
        with pytest.raises(InputError):
            cache.get("a", lambda: store.load("nonesuch"))
        assert cache.get("a", lambda: 1) == 1

    def test_a_file_that_is_slow_to_read_delays_nobody_else(self):
        """While one model is being made, another is made and given out."""
        cache, reading, go_on = module.Cache(2), threading.Event(), threading.Event()

        def slow():
            reading.set()
            assert go_on.wait(20)
            return "slow"

        thread = threading.Thread(target=cache.get, args=("slow", slow))
        thread.start()
        assert reading.wait(20)
        assert cache.get("fast", lambda: "fast") == "fast"
        go_on.set()
        thread.join(20)
        assert cache.get("slow", lambda: "again") == "slow"

    def test_threads_share_one_and_get_the_same(self, weights, monkeypatch):
        loads, results = [], []
        load = store.load
        monkeypatch.setattr(store, "load", lambda *given: loads.append(given) or load(*given))

        def work():
            results.append(next(network(frames(), header(), weights=weights)).estimate.image)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(loads) == 1
        assert len(results) == 4
        for result in results[1:]:
            assert torch.equal(result, results[0])
