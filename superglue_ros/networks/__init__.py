"""The networks and optimal transport of the papers, and their weights files.

Without settings and geometry; only ``weights`` reads and writes files.
"""
