"""Streams of MRD version 2, read and written by the package mrd-python (the extra `mrd2`).

Inside, all is as in ISMRMRD, version 1: `header` and `items` convert, `streams` reads and writes. mrd-python has two
schemas: 2.1 (Python before 3.12) counts times in ticks and µs, 2.2 in ns. Each reads only streams of its own schema.
"""
