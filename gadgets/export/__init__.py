"""Images where people look at them: DICOM, NIfTI, PNG, and BART's cfl, from ISMRMRD's image files.

contents: an image file as it is read. places: where pixels lie in the patient. stacks: slices, echoes and repetitions
in order. planes: what pictures show. dicom, nifti, png, cfl: one format each. mr: the MR images of DICOM. objects: its
segmentations and parametric maps. identity: its UIDs. elements: its other elements from the scan's header. greys: its
stored pixels. needed: libraries that may be absent. command: `python -m gadgets export`.
"""
