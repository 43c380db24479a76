"""The owner's desk: what is pushed from there to the traps, and how they all are. Runs on a laptop, not on a trap.

::

    owner.py    the owner's own settings: which hub, which key
    places.py   where documents are put and heartbeats lie: a hub, a folder, or …
    broker.py   … a broker
    push.py     a document: checked, compared with the one before, numbered, signed
    fleet.py    all traps in one table
"""
