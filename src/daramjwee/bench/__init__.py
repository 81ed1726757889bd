"""Measuring: pairs in turns, medians with their spread, and a stated target beside each figure.

`python -m daramjwee.bench` runs every scenario. Nothing here measures or starts anything when imported.
"""
