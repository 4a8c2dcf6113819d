"""Chains run once before the first scan, so that its first image is as fast as the second."""

from __future__ import annotations

import logging

from gadgets.gadget import lookup
from gadgets.hosts.rules import Rules, chain_of
from gadgets.hosts.scan import reconstructed
from gadgets.messages import ConfigFile
from gadgets.simulate import Settings, make_scan
from gadgets.speaker import GadgetError
from mrnets.errors import InputError
from mrnets.mrd.header import read_header

__all__ = ["preload"]

SCAN = Settings(matrix=64, coils=32, slices=1, acceleration=2.0, calibration=16)
"""As many coils as chains compress to, and little else: it starts libraries and devices."""

_logger = logging.getLogger(__name__)


def preload(name: str, rules: Rules) -> None:
    """Load the networks of one of the operator's chains, and run it on a small simulated scan.

    Raises InputError for a chain, weights or a device that cannot be had. A chain that does not fit the scan, such
    as one for several echoes, has its networks loaded all the same."""
    chain = chain_of(ConfigFile(name), rules)
    header, lines, _ = make_scan(SCAN)
    for stage in chain.stages:
        if stage.name == "network":  # it loads its weights before the first item
            list(lookup(stage.name).bind(stage.properties)((), read_header(header).header))
    try:
        for _ in reconstructed(chain, lines, header):
            pass
    except (InputError, GadgetError) as error:
        _logger.warning("%s is loaded; it was not tried: %s", chain.source, error)
