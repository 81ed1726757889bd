"""`daramjwee demo`: the main job on real input, every figure measured and checked.

`record` what a run is told and what it found, `stage` origin, cache and folder, `readers` many threads on one object,
`steps` and `races` one function for each thing shown, `play` all of them in order, `screen` how it looks.
"""
