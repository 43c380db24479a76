"""The uplink: the connection to the hub. The trap always calls; nothing listens.

calls         one turn: ask for remote settings, send the heartbeat, remember how that went
reports       what a hub is to know once: nights, deployments
pacing        when: by chance within bounds
http          over HTTPS
mqtt          over MQTT
"""
