"""One file per network; the file's name is the network's name and its `__all__` names the one class. No registry."""
