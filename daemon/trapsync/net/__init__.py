"""What goes over the network: requests with deadlines, streamed bodies, limits and waits.

http            one server, asked over HTTP: exact answers, deadlines, one error tree
http_body       bodies that are streamed from a file, multipart forms
throttle        a bandwidth limit that several uploads share
backoff         how long to wait before the next attempt
stickypi_rules  what a Sticky Pi server accepts
"""
