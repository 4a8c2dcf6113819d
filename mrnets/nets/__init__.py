"""One file per network; the file's name is the network's name and the one class in its `__all__`. No registry."""
