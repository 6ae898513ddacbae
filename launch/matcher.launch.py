"""Starts the matcher node and brings it up.

ros2 launch superglue_ros matcher.launch.py image:=/camera/image_raw camera_info:=/camera/info
ros2 launch superglue_ros matcher.launch.py stereo:=true left_image:=/stereo/left/image_rect ...
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

TOPICS = {
    "image": "Input: images; with image_transport compressed, /compressed is added to the name.",
    "camera_info": "Input: calibration of the camera.",
    "keypoints": "Input, with inputs.keypoints: keypoints of an outside front-end.",
    "depth": "Input, with inputs.depth: depth registered to the image.",
    "matches": "Output: correspondences with keyframes.",
    "relative_pose": "Output: pose of each frame in its keyframes.",
    "features": "Output: keypoints, and descriptors where outputs.descriptors asks for them.",
    "matches_image": "Output: picture of the matches, drawn while there is a subscriber.",
    "status": "Output: seconds and counts, after every frame.",
}

# The topics of a rectified stereo pair have slashes in their names, launch arguments do not.
STEREO_TOPICS = {
    "left_image": ("left/image_rect", "Input, with stereo: rectified left images."),
    "left_camera_info": ("left/camera_info", "Input, with stereo: their calibration."),
    "right_image": ("right/image_rect", "Input, with stereo: rectified right images."),
    "right_camera_info": (
        "right/camera_info",
        "Input, with stereo: their calibration; P[3] is -fx times the baseline.",
    ),
}

# Launch arguments that take the place of a parameter of params_file, where they are not empty.
PARAMETERS = {
    "device": ("device", "Where the networks run: auto, cpu, cuda:0 and so on."),
    "weights": ("matcher.weights", "SuperGlue weights file."),
    "front_end_weights": ("front_end.weights", "SuperPoint weights file."),
}


def bring_up(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    # The events below bring the node up: it must not do so a second time by itself.
    parameters: dict[str, bool | str] = {"autostart": False}
    if given["use_sim_time"] == "true":
        parameters["use_sim_time"] = True
    parameters |= {name: given[key] for key, (name, _) in PARAMETERS.items() if given[key]}
    if given["stereo"]:
        parameters["inputs.stereo"] = given["stereo"] == "true"
    stereo = [(name, given[key]) for key, (name, _) in STEREO_TOPICS.items()]
    node = LifecycleNode(
        package="superglue_ros",
        executable="matcher",
        name="matcher",
        namespace=given["namespace"],
        output="screen",
        parameters=[given["params_file"], parameters],
        remappings=[
            *((name, given[name]) for name in TOPICS if given[name] != name),
            *((name, topic) for name, topic in stereo if topic != name),
            ("image/compressed", f"{given['image']}/compressed"),
            ("left/image_rect/compressed", f"{given['left_image']}/compressed"),
            ("right/image_rect/compressed", f"{given['right_image']}/compressed"),
        ],
        arguments=["--ros-args", "--log-level", given["log_level"]],
    )
    if given["autostart"] == "false":
        return [node]

    def change(transition: int) -> EmitEvent:
        matcher = matches_action(node)
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matcher, transition_id=transition)
        )

    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[change(Transition.TRANSITION_ACTIVATE)],
        )
    )
    return [node, activate, change(Transition.TRANSITION_CONFIGURE)]


def generate_launch_description() -> LaunchDescription:
    default_file = Path(get_package_share_directory("superglue_ros")) / "config" / "matcher.yaml"
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=str(default_file),
                description="YAML file of parameters.",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node and its topics."
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=["true", "false"],
                description="Follow /clock, for a bag or a simulator.",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="true",
                choices=["true", "false"],
                description="Configure and activate the node; false leaves it to ros2 lifecycle.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severity that is logged.",
            ),
            DeclareLaunchArgument(
                "stereo",
                default_value="",
                choices=["", "true", "false"],
                description="Take rectified stereo pairs. Empty: as params_file says "
                "(inputs.stereo).",
            ),
            *(
                DeclareLaunchArgument(
                    key,
                    default_value="",
                    description=f"{text} Empty: as params_file says ({parameter}).",
                )
                for key, (parameter, text) in PARAMETERS.items()
            ),
            *(
                DeclareLaunchArgument(name, default_value=name, description=text)
                for name, text in TOPICS.items()
            ),
            *(
                DeclareLaunchArgument(key, default_value=name, description=text)
                for key, (name, text) in STEREO_TOPICS.items()
            ),
            OpaqueFunction(function=bring_up),
        ]
    )
