"""Alerts: messages to people about what changed at the traps, and a ping that says that the hub works.

::

    watch.py       a turn of it each minute, in a thread of its own
    listening.py   for how long the hub could have heard the traps
    conditions.py  what a trap's newest heartbeat says about each rule
    changes.py     which rules hold, and what changed, in the database
    outbox.py      what each address has still to be told, and when it may be
    texts.py       the words of a message
    digest.py      the daily summary
    pings.py       the address that a dead-man's service gave
"""
