"""Defects to sow in a baked app, one at a time, each with the test of the app that names it.

The text to replace stands exactly once in its file, so that a change of the source shows here.
"""

from . import memory, postgres, redis, server, sqlite, turns, values

PLACES = (memory, sqlite, redis, postgres, values, server, turns)
DEFECTS = {place.__name__.rpartition(".")[2]: place.DEFECTS for place in PLACES}
