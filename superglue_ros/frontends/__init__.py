"""Front-ends: images to local features, one file each, behind :class:`base.FrontEnd`.

Their names and factories stand in :mod:`superglue_ros.registry`.
"""
