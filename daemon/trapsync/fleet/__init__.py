"""The operator's side: publish remote settings, and see all traps. It runs on a laptop, not on a trap.

operator_settings  the operator's own settings: which hub, which key
operator_key       the key's file: the key, its last number, and what it published
connection         where documents are published and heartbeats read: a hub or a folder
mqtt               the same with an MQTT broker
audience           whom a document reaches, as far as the traps say
push               a document: checked, compared with the one before, numbered, signed
table              all traps in one table
effort             what they watched and what not, night by night
"""
