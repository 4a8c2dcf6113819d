# %% [markdown]
# # From raw data to DICOM
#
# A raw scan becomes images, DICOM files, a NIfTI file, and a report. It takes less than a minute on one processor core.
# The commands are those that you would type. `run` types them for you.

# %%
import shlex
import subprocess
import sys
from pathlib import Path


def run(command: str) -> None:
    """Run a command of this project, such as "gadgets replay scan.h5", and show what it prints."""
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)


# %% [markdown]
# ## A scan
#
# Raw data of a vendor become an ISMRMRD file by the vendor's converter. For Siemens, measurement 2 of a file:
# `siemens_to_ismrmrd -f meas.dat -z 2 -o scan.h5`. Here we simulate such a file: two slices, 8 coils, 4-fold
# undersampled, with noise lines and calibration lines as Siemens' converter writes them.

# %%
run("gadgets simulate -o scan.h5 --vendor siemens --matrix 128 --coils 8 --slices 2 --acceleration 4 --snr 60 --seed 1")

# %% [markdown]
# `inspect` tells what a file holds, and which chains fit. Do this first with every new file.

# %%
run("gadgets inspect scan.h5")

# %% [markdown]
# ## Images
#
# `replay` runs the scan through a chain, as a scanner would. Several `-c` run several chains, and the report sets
# them side by side.

# %%
run(
    "gadgets replay scan.h5 -o images.h5 -c l1wavelet -c cgsense "
    "--dicom dicom --nifti images.nii.gz --report report.html"
)

# %% [markdown]
# What was written has the chain in its name. The report is one page, which a browser opens without a network.

# %%
for path in sorted(Path().rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size:9,d} bytes  {path}")

# %% [markdown]
# ## What the images say
#
# Each image has a comment: which method made it, and what was doubtful. The log has the same sentences.

# %%
import ismrmrd

with ismrmrd.Dataset("images_l1wavelet.h5", "dataset", create_if_needed=False) as images:
    meta = ismrmrd.Meta.deserialize(images.read_image("image_1", 0).attribute_string)
print(meta["ImageComments"])

# %% [markdown]
# ## DICOM
#
# A folder for each series, a file for each slice. All of one scan have one study and one frame of reference. The
# description says that it is not for clinical use.

# %%
import pydicom

files = sorted(Path("dicom/l1wavelet").rglob("*.dcm"))
for file in files:
    image = pydicom.dcmread(file)
    print(file, image.Rows, "x", image.Columns, image.ImagePositionPatient, image.SeriesDescription)

# %% [markdown]
# ## NIfTI
#
# The affine places the voxels in the patient, in mm. DICOM and NIfTI agree on the place of each voxel.

# %%
import nibabel

volume = nibabel.Nifti1Image.from_filename("images_l1wavelet.nii.gz")
print(volume.shape)
print(volume.affine.round(2))

# %% [markdown]
# ## Other settings
#
# A chain's properties can be changed for one run. `python -m gadgets gadgets coils` lists those of a gadget.
# Patient, study and device stay out of DICOM files with `--anonymous`.

# %%
run("gadgets replay scan.h5 -c cgsense -o unfolded.h5 --set network.options='iterations=20' --set images.format=short")
