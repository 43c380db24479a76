"""What was watched and what was not: when pictures were due, which were taken, and why the others were not.

::

    slots.py    the moments at which a schedule wants pictures, and which of them have one
    reasons.py  from when on what kept pictures from being taken
    ledger.py   both together: every slot of the trap, with the reason for each that was missed
    tables.py   the slots by hour, night or deployment, and as gaps
    nights.py   a night as the hub is told it

Nothing of it is stored: all follows from the catalog's images, boots and runs (`catalog.runs`) when it is asked for. So it
is right again when the times of images are corrected, and costs nothing while pictures are taken.
"""
