"""Starts the matcher, the example back-end on its topics, and RViz where it is installed.

ros2 launch superglue_ros slam_demo.launch.py image:=/camera/image_raw camera_info:=/camera/info
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity, logging
from superglue_ros.ros.launching import is_installed, is_on, switch, viewer_arguments

# Handed on to matcher.launch.py, where they are described.
PASSED_ON = (
    *("image", "camera_info", "depth", "namespace", "use_sim_time", "respawn", "params_file"),
    *("image_transport", "viewer", "viewer_file"),
)


def rviz(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    if not is_on(given["rviz"]):
        return []
    if not is_installed("rviz2"):
        logging.get_logger("slam_demo").warning(
            "rviz2 is not installed: the nodes run without it. Install it with "
            "`rosdep install --from-paths src --ignore-src`, or say rviz:=false"
        )
        return []
    share = Path(get_package_share_directory("superglue_ros"))
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=given["namespace"],
            arguments=["-d", str(share / "rviz" / "slam.rviz")],
            parameters=[{"use_sim_time": is_on(given["use_sim_time"])}],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory("superglue_ros"))
    passed_on = {name: LaunchConfiguration(name) for name in PASSED_ON}
    matcher = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "matcher.launch.py")),
        launch_arguments=passed_on.items(),
    )
    back_end = Node(
        package="superglue_ros",
        executable="bundle_adjuster",
        name="bundle_adjuster",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            {name: LaunchConfiguration(name) for name in ("use_sim_time", "publish_tf")},
            # A path is text, also where it could be read as something else.
            {
                "imu_calibration": ParameterValue(
                    LaunchConfiguration("imu_calibration"), value_type=str
                )
            },
        ],
        remappings=[(name, LaunchConfiguration(name)) for name in ("camera_info", "imu")],
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=2.0,
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="image", description="Input: images."),
            DeclareLaunchArgument(
                "camera_info", default_value="camera_info", description="Input: calibration."
            ),
            DeclareLaunchArgument(
                "depth",
                default_value="",
                description="Input: registered depth. true, false, or its topic.",
            ),
            DeclareLaunchArgument(
                "imu", default_value="imu", description="Input: IMU, with imu_calibration."
            ),
            DeclareLaunchArgument(
                "imu_calibration",
                default_value="",
                description="Kalibr's *camchain-imucam*.yaml or EuRoC's imu0/sensor.yaml; empty = "
                "without IMU.",
            ),
            DeclareLaunchArgument(
                "image_transport", default_value="", description="raw, or compressed."
            ),
            *viewer_arguments(),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of all nodes and topics."
            ),
            switch("use_sim_time", "false", "Follow /clock, for a bag or a simulator."),
            switch("respawn", "false", "Start a node again two seconds after it died."),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(share / "config" / "slam.yaml"),
                description="YAML file of the matcher's parameters, where they are no defaults.",
            ),
            switch("publish_tf", "false", "Let the back-end broadcast map -> odom (REP-105)."),
            switch("rviz", "true", "Start RViz with rviz/slam.rviz, where it is installed."),
            matcher,
            back_end,
            OpaqueFunction(function=rviz),
        ]
    )
