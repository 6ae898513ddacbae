"""Worlds of games: id Tech 3's maps and SuperTuxKart's tracks, with exact depth and pose.

Data flow: ``archives`` (files of a game) -> ``bsp`` (the map file), ``shaders`` (what its surfaces
are), ``patches``, ``lightmaps`` -> ``world`` (all that is drawn) -> ``storage`` (compact files) ->
``renderer``, with ``cameras`` in the ``free_space`` and ``exposure``. Or ``archives`` -> ``spm`` (a
model), ``drive_line`` -> ``tracks`` (a world as well) -> ``storage``. ``bsp_space`` and
``track_space`` are the two kinds of free space.
"""
