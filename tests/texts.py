"""Texts that several tests read."""

from __future__ import annotations

_LEVELS = "".join(f", a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9))
REPEATED = f"{{a0: &a0 [x, x, x, x, x]{_LEVELS}}}"
"""YAML of less than 1 KiB. Its aliases make a billion values of it."""
