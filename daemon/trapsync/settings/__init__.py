"""The settings: one TOML file with typed tables, and one parser for all that is written in its form.

schema    every table and key with its type, default and limits
table     what each table is made with, and the checks that several share
hub       the config file of a hub
project   what only people know about a study, for packages of Camtrap DP
config_file  read a config file, decode a table, write settings as text, read a secret, if nobody else could replace it
alerts    what the hub tells people, and when not; alert_addresses reads whom
open_links   which addresses are reached without TLS over a network of others
layers    the config file, remote settings and the local override, one over the other
units     durations and sizes with their units
words     numbers, spans and moments for people
messages  what is wrong with a value, in words for somebody who knows no types
schedule  what is open when, and when next
windows   the windows of a schedule, by the clock on the wall and by the sun
sun       when the sun rises and sets
"""
