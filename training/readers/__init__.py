"""Data sets: one file each. Every reader yields an `Example` for a number, so that a run can go on where it stopped."""
