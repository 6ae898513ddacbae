"""The networks and optimal transport as the papers have them, and their weights files.

No settings, no geometry; files in ``weights`` only.
"""
