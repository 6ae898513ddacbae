"""Image sequences on disk: colour, depth, calibration and ground truth, frame by frame.

One file a layout, behind :class:`base.Layout`; their names are in
:data:`superglue_ros.registry.SEQUENCES`.
"""
