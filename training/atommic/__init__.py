"""Recipes from the training configurations of ATOMMIC 1.0.1: `python -m training from-atommic`."""
