"""Durable files, open folders and locks, which everything else uses.

durable           write a file so that it survives a power cut; folders, flushes, texts for the card's errors
locks             locks between processes
space             how much room a file system has left
folder            a folder opened once, and what lies below it, without following a link
destination_mark  the mark in a folder that images are delivered to, which holds the folder's own id
parent            a child process that ends with the one that started it
failpoint         names in the code at which tests kill the program
"""
