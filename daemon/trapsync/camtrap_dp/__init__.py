"""Packages of Camtrap DP 1.0.2, the exchange standard of camera traps (https://camtrap-dp.tdwg.org).

::

    package.py      the package: written whole or not at all, row by row
    tables.py       its tables: their fields, and values that fit them
    deployments.py  which picture, and which gap, belongs to which deployment; the rows of those
    observations.py what detectors and people saw, as observations
    descriptor.py   datapackage.json
    files.py        the pictures: copied, linked, or somewhere else
    records.py      what a package is made of, whoever keeps it
    trap.py, folder.py   where that comes from: a trap's catalog; a stick's or a directory's folder (the hub has its own)
"""
