"""The spool: the folder where finished images wait, and what is done with its files.

scan        the files as they are on the card
observer    watchdog's hints that a file is new
inbox       paths that wait to be examined
spool_mark  whether this is the spool of last time, or an empty mount point
new_files   what a capture needs: room, a free name
undecided   files that are still being written, or killed their examiner
missing     files that were removed or moved
quarantine  damaged files, kept with their reasons
pruning     which images may leave the card, and how they go
overlap     folders that must not lie in one another
"""
