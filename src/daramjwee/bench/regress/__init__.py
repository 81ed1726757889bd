"""The regression guard: is this tree slower than that one, or does it do more than it did?

`trees` and `side` do, `verdict` and `baseline` decide, `guard` introduces them. Design: docs/design/bench.md
"""
