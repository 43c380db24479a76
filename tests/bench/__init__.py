"""What the program costs, measured side by side: `scripts/bench`.

Each module measures one thing and gives rows of the table: our figure, that of a reference in the same run, and
their ratio, which may have a target. Only ratios are judged: a machine's seconds say little about another's.
"""
