"""Poses of single images in a map that ``superglue-ros reconstruct`` made.

query -> features -> the most similar images of the map -> matches -> 3D points -> pose
"""
