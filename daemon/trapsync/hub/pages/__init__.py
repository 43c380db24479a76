"""What the hub shows a person with a browser. It asks no other host for anything, and works without JavaScript.

::

    site.py       which pages there are: a new one gets a line there
    frame.py      what they have in common: who may see them, forms, headers, what went wrong in words
    login.py      log in and out
    fleet.py      a card for each trap
    map.py        where they stand
    trap.py       a trap
    night.py      a night, and each picture of it
    downloads.py  a night as a zip
    plots.py      plots over time
    calendar.py   the effort calendar
    devices.py    which traps belong to the hub: codes, groups, locking one out
    pictures.py   the pictures on pages, in three sizes
    asset_files.py  style sheet, script and icon
    templates/    a file of Jinja for each page; all of them extend base.html
    assets/       what a browser fetches beside the pages

A page is a method that gets the parts of its address and returns `frame.render("its_template.html", …)`. What it cannot do
it raises: `NoSuchPage`, `NotAllowed`, or any error of the hub. Texts from outside go through `errors.one_line` first.
"""
