"""The hub: a small receiver that speaks the Sticky Pi upload protocol (extra `hub`).

::

    server.py     runs it: the port, the accounts of a first start, the end
    app.py        the endpoints: statuses and bodies as the Sticky Pi server has them
    intake.py     what is made of an uploaded file: the rules of the name and of the metadata
    store.py      images in folders, their rows beside them; nothing is ever overwritten
    fleet_app.py  the endpoints of the fleet: signed settings for the traps, heartbeats from them
    fleet.py      … and what is kept of both
    annotations.py  what detectors found in an image
    accounts.py   users, roles, passwords, tokens
    links.py      addresses of images that expire
    wire.py       moments and JSON as they travel
    database.py   the SQLite file under all of them
"""
