"""The meaning of ISMRMRD raw data: flags, lines, encoding spaces, k-space on its grid, calibration, noise scans, files.

Gadgets and training's readers both stand on it, so that both make the same k-space of the same scan.
"""
