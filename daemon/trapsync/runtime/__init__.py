"""The running daemon: its threads, jobs and child processes.

service              the daemon: start, watch over all parts, end
single_run           one picture, deliver, end
capture_thread       pictures at their interval
ingest_thread        new files, examined and recorded
scheduler            jobs and their intervals (APScheduler)
child_process        what child processes have in common
camera_process       the camera in a process of its own
examiners            worker processes that look at new files
messenger            messages to people, each sent from a process of its own
upload_pool          several uploads at once
destination_context  destinations, connected with the catalog
clock_correction     images whose time was not known, put right
liveness             which parts still report
trial                whether new settings work, or are rolled back
local_actions        what commands do in the daemon's place
verification         the card and the destinations compared with the catalog
context              what the threads share
systemd              ready, watchdog, stopping
signals              the signals that the main thread waits for
"""
