"""Starts the matcher, the example back-end on its topics, and RViz where it is asked for.

ros2 launch superglue_ros slam_demo.launch.py image:=/camera/image_raw camera_info:=/camera/info
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

# Handed on to matcher.launch.py, where they are described.
PASSED_ON = ("image", "camera_info", "depth", "namespace", "use_sim_time")


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("superglue_ros"))
    passed_on = {name: LaunchConfiguration(name) for name in PASSED_ON}
    use_sim_time = {"use_sim_time": LaunchConfiguration("use_sim_time")}
    matcher = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "matcher.launch.py")),
        launch_arguments={
            **passed_on,
            "params_file": LaunchConfiguration("params_file"),
        }.items(),
    )
    back_end = Node(
        package="superglue_ros",
        executable="bundle_adjuster",
        name="bundle_adjuster",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[use_sim_time],
        remappings=[("camera_info", LaunchConfiguration("camera_info"))],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", str(share / "rviz" / "slam.rviz")],
        parameters=[use_sim_time],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="image", description="Input: images."),
            DeclareLaunchArgument(
                "camera_info", default_value="camera_info", description="Input: calibration."
            ),
            DeclareLaunchArgument(
                "depth",
                default_value="depth",
                description="Input, with inputs.depth in params_file: registered depth.",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of all nodes and topics."
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=["true", "false"],
                description="Follow /clock, for a bag or a simulator.",
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(share / "config" / "slam.yaml"),
                description="YAML file of the matcher's parameters, where they are no defaults.",
            ),
            DeclareLaunchArgument(
                "rviz",
                default_value="true",
                choices=["true", "false"],
                description="Start RViz with rviz/slam.rviz.",
            ),
            matcher,
            back_end,
            rviz,
        ]
    )
