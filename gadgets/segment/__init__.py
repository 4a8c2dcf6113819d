"""Segmentation of images in files, by networks on images: `python -m gadgets segment`."""
