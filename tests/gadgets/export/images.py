"""Image files made by hand."""

from pathlib import Path

import ismrmrd
import numpy as np
from ismrmrd.meta import Meta

from gadgets.imagefiles import write_images

HEADER = """<?xml version="1.0" encoding="ISO-8859-1"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  {subject}
  <studyInformation><studyDate>2026-11-22</studyDate><studyTime>13:14:15</studyTime><studyID>7</studyID>
  <accessionNumber>99</accessionNumber></studyInformation>
  <measurementInformation><measurementID>{measurement}</measurementID><patientPosition>HFS</patientPosition>
  <protocolName>t2_tse</protocolName></measurementInformation>
  <acquisitionSystemInformation><systemVendor>MAKER</systemVendor><systemFieldStrength_T>2.89</systemFieldStrength_T>
  </acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>123250000</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding><encodedSpace><matrixSize><x>8</x><y>6</y><z>1</z></matrixSize>
  <fieldOfView_mm><x>80</x><y>60</y><z>5</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>8</x><y>6</y><z>1</z></matrixSize>
  <fieldOfView_mm><x>80</x><y>60</y><z>5</z></fieldOfView_mm></reconSpace>
  <encodingLimits/><trajectory>cartesian</trajectory></encoding>
  <sequenceParameters><TR>3000</TR><TE>90</TE><TE>120</TE><flipAngle_deg>150</flipAngle_deg></sequenceParameters>
</ismrmrdHeader>"""
SUBJECT = """<subjectInformation><patientName>Müller^Ada</patientName><patientID>P1</patientID>
<patientBirthdate>1990-02-03</patientBirthdate><patientGender>F</patientGender></subjectInformation>"""


def header(subject: str = SUBJECT, measurement: str = "42_1_7_5") -> bytes:
    return HEADER.format(subject=subject, measurement=measurement).encode("latin-1")


def image(pixels, meta=None, *, series=1, z=0.0, kind=ismrmrd.IMTYPE_MAGNITUDE, **counters) -> ismrmrd.Image:
    """An axial image of 10 mm pixels and 5 mm slices, from pixels (y, x)."""
    pixels = np.asarray(pixels)[None, None]
    made = ismrmrd.Image.from_array(np.ascontiguousarray(pixels), transpose=False)
    head = made.getHead()
    head.image_type, head.image_series_index = kind, series
    head.field_of_view = (10.0 * pixels.shape[-1], 10.0 * pixels.shape[-2], 5.0)
    head.position, head.read_dir, head.phase_dir, head.slice_dir = (0, 0, z), (1, 0, 0), (0, 1, 0), (0, 0, 1)
    for name, value in counters.items():
        setattr(head, name, value)
    return ismrmrd.Image(head=head, data=pixels, meta=Meta(meta or {}))


def written(path: Path, images, xml: bytes | None = None) -> Path:
    with write_images(path, header=xml) as file:
        for one in images:
            file.append(one)
    return path
