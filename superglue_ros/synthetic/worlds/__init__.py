"""Worlds of games: maps of the id Tech 3 format as scenes with exact depth and pose.

Data flow: ``archives`` (files of a game) -> ``bsp`` (the map file), ``shaders`` (what its surfaces
are), ``patches``, ``lightmaps`` -> ``world`` (all that is drawn) -> ``storage`` (compact files) ->
``renderer``, with ``cameras`` in the ``free_space`` and ``exposure``.
"""
