"""A network, a gadget, a reader and a loss for gadgetron-networks."""

__version__ = "0.1.0"
