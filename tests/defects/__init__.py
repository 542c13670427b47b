"""Defects to sow in a baked app, one at a time, each with the app's test that must catch it.

The text to replace occurs exactly once in its file, so that a change to the source shows here.
"""

from . import memory, postgres, redis, server, sqlite, turns, values

PLACES = (memory, sqlite, redis, postgres, values, server, turns)
DEFECTS = {place.__name__.rpartition(".")[2]: place.DEFECTS for place in PLACES}
