"""Matchers: two sets of features to correspondences, one file each, behind :class:`base.Matcher`.

Their names and factories stand in :mod:`superglue_ros.registry`.
"""
