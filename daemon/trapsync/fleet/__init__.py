"""The operator's side: publish remote settings, and see all traps. It runs on a laptop, not on a trap.

operator_settings  the operator's own settings: which hub, which key
connection         where documents are published and heartbeats read: a hub or a folder
mqtt               the same with an MQTT broker
push               a document: checked, compared with the one before, numbered, signed
table              all traps in one table
"""
