"""A small visual-SLAM back-end on GTSAM that consumes matches and relative poses.

``back_end.py`` tells the story; :mod:`superglue_ros.ros.bundle_adjuster` is its ROS node, and
``superglue-ros slam`` runs it over a recorded sequence.
"""
