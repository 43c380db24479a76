"""Settings that are sent to the trap, and reports that it sends.

document         a signed document: form, signature, addressee
policy           which settings may be sent, and within which limits
in_force         the settings in force, read once, and their report
record           the one file that remembers what was taken, tried, kept
remote_settings  a document judged and put in force, committed or rolled back
resend           a request to send images again: the destinations are asked
heartbeat        the trap's report
uplink/          the connection to the hub, over HTTP or MQTT
"""
