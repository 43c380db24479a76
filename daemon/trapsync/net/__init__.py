"""What goes over the network: requests with deadlines, streamed bodies, limits and waits.

http            a client of one server: timeouts, deadlines, bandwidth, one error
http_answer     its answers: exact, unpacked within limits
slots           where documents lie
invitation      the code with which a trap joins a hub, and what it promises
foreign_json    JSON from outside: decoded within bounds, what cannot be stored taken out
heartbeat       what a heartbeat may hold
judgement       a trap judged from afar, by its heartbeats
http_body       bodies that are streamed from a file, multipart forms
ping            tell a dead-man's service that somebody works
throttle        a bandwidth limit that several uploads share
backoff         how long to wait before the next attempt
stickypi_rules  what a Sticky Pi server accepts
"""
