"""The hub: a small receiver that speaks the Sticky Pi upload protocol (extra `hub`).

::

    server.py     runs it: the port, the accounts of a first start, the end
    channel.py    its connections: heads before bodies, deadlines, limits
    threads.py    who answers: threads for programs, and others for browsers
    admission.py  who may send what, by the head of a request; guesses; who was refused
    password_queue.py  compares passwords one after another
    app.py        the endpoints, with the status codes and bodies of the Sticky Pi server
    uploads.py    the endpoint that takes images
    arrivals.py   writes what is uploaded to the disk as it comes
    intake.py     checks an uploaded file, its name and its metadata, and makes its row
    store.py      images in folders, their rows beside them; nothing is ever overwritten
    thumbnails.py  their small copies, and who looks at pictures
    room.py       the free space that is left
    fleet_app.py  the endpoints of the fleet: signed settings for the traps, heartbeats from them
    fleet.py      what the hub stores of both
    heartbeat_history.py  how long heartbeats are kept
    retention.py  deletes what is older than the settings say
    believed_time.py  what time it is, for who deletes by it
    backup.py     copies a hub while it runs
    reports.py    what the traps reported once: the effort of their nights, their deployments
    reports_app.py  the endpoints of that
    holdings.py   what it holds of its traps, by trap and time
    nights.py     nights and local time
    alerts/       messages to people: what changed at the traps
    metrics.py    what the heartbeats say, for Prometheus
    long_answers.py  answers that are made in a file, row by row
    annotations.py  what detectors found in an image
    enrolment.py  which traps belong to it: codes, and traps that join, are revoked, are forgotten
    enrolment_app.py  the endpoints of that
    accounts.py   who may log in: roles, passwords, tokens
    sessions.py   who is logged in by a browser
    pages/        what a browser shows
    links.py      addresses of images that expire
    wire.py       dates and JSON of requests
    packages.py   what a package of Camtrap DP has of a hub
    database.py   the SQLite file under all of them
"""
