"""Folders of scans for `replay`: many scans on several processes, or on the workers of a Dask cluster."""
