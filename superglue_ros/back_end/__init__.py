"""A small visual-SLAM back-end on GTSAM that consumes matches and relative poses.

Start at ``bundle_adjuster.py``; :mod:`superglue_ros.ros.bundle_adjuster` is the ROS node, and
``superglue-ros slam`` runs the back-end over a recorded sequence.
"""
