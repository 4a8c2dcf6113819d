"""Training: `python -m training fit RECIPE`. One loop, one tree of options, one file that holds the result."""

from mrnets import __version__ as __version__
