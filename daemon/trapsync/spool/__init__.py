"""The spool: the folder where finished images wait, and what is done with its files.

scan        look at files and walk through the folders
observer    watchdog's hints that a file is new
inbox       paths that wait to be examined
spool_mark  whether this is the spool of last time, or an empty mount point
quarantine  damaged files, kept with their reasons
pruning     which images may leave the card, and how they go
overlap     folders that must not lie in one another
"""
