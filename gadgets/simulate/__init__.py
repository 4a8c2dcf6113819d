"""`python -m gadgets simulate`: a simulated ISMRMRD scan, of a phantom or of anatomy from a NIfTI file.

Many coils with correlated noise, a noise measurement, calibration lines, a chosen mask, readout oversampling, several
echoes, 2-D slices or a 3-D volume. The header has all the information of a scanner's header, in the style of a vendor's
converter. The same seed gives the same file.

settings: what to simulate. objects: what lies in the scanner. scanner: its coil images and their k-space. sampling:
which lines are measured. lines: acquisitions. header: the header's XML. vendors: what converters write. scan: all of
it together. command: the options.
Axes: volume (z, y, x) of the scan: x = readout (read_dir), y = phase encoding, z = slice or partition. Patient axes are
DICOM's: left, posterior, superior.
"""

from gadgets.simulate.command import add_arguments, run
from gadgets.simulate.scan import make_noise_scan, make_scan
from gadgets.simulate.settings import Settings

__all__ = ["Settings", "add_arguments", "make_noise_scan", "make_scan", "run"]
