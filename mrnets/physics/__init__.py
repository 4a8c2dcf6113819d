"""MR physics on NumPy, CuPy and torch, from one implementation each. No module here imports torch or CuPy."""
