"""Starts the matcher node and brings it up.

ros2 launch superglue_ros matcher.launch.py image:=/camera/image_raw camera_info:=/camera/info
ros2 launch superglue_ros matcher.launch.py depth:=/camera/aligned_depth respawn:=true ...
ros2 launch superglue_ros matcher.launch.py viewer:=rerun image:=/camera/image_raw ...
ros2 launch superglue_ros matcher.launch.py stereo:=true left_image:=/stereo/left/image_rect ...
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from superglue_ros.ros.launching import (
    enclave,
    is_on,
    optional_input,
    parameter_files,
    switch,
    viewer_arguments,
)

TOPICS = {
    "image": "Input: images; with image_transport compressed, /compressed is added to the name.",
    "camera_info": "Input: calibration of the camera.",
    "matches": "Output: correspondences with keyframes.",
    "relative_pose": "Output: pose of each frame in its keyframes.",
    "relocalised_pose": "Output: pose of each frame in a map that was loaded.",
}

# Outputs whose own names lie below the node's: ~/features and so on.
PRIVATE_TOPICS = {
    "features": "Output: keypoints, and descriptors where outputs.descriptors asks for them.",
    "matches_image": "Output: picture of the matches, drawn while there is a subscriber.",
    "status": "Output: seconds and counts, after every frame.",
}

# Inputs that are off by default. true takes the topic of that name, a name takes that topic.
OPTIONAL_INPUTS = {
    "keypoints": "keypoints of an outside front-end",
    "depth": "depth registered to the image, for metric scale",
    "mask": "mono8 mask of the image, zero where nothing is to be matched",
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
    "image_transport": ("image_transport", "raw, or compressed."),
}

# What the viewer listens to beside the images, as the matcher's remappings name it.
VIEWED = ("camera_info", "matches", "relative_pose", "relocalised_pose")


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    # The node brings itself up, so that one which is started again is brought up again.
    parameters: dict[str, bool | str] = {"autostart": is_on(given["autostart"])}
    if is_on(given["use_sim_time"]):
        parameters["use_sim_time"] = True
    parameters |= {name: given[key] for key, (name, _) in PARAMETERS.items() if given[key]}
    if given["stereo"]:
        parameters["inputs.stereo"] = is_on(given["stereo"])
    topics = {name: given[name] for name in TOPICS}
    topics |= {f"~/{name}": given[name] for name in PRIVATE_TOPICS}
    for name in OPTIONAL_INPUTS:
        wanted, topics[name] = optional_input(given[name], name)
        if wanted is not None:
            parameters[f"inputs.{name}"] = wanted
    topics |= {name: given[key] for key, (name, _) in STEREO_TOPICS.items()}
    for name in ("image", "left/image_rect", "right/image_rect"):
        topics[f"{name}/compressed"] = f"{topics[name]}/compressed"
    node = LifecycleNode(
        package="superglue_ros",
        executable="matcher",
        name="matcher",
        namespace=given["namespace"],
        output="screen",
        parameters=[*parameter_files(given["params_file"]), parameters],
        remappings=[(name, topic) for name, topic in topics.items() if topic != name],
        arguments=["--ros-args", "--log-level", given["log_level"], *enclave(given["enclave"])],
        respawn=is_on(given["respawn"]),
        respawn_delay=2.0,
    )
    return [node, viewer(given, topics)] if given["viewer"] else [node]


def viewer(given: dict[str, str], topics: dict[str, str]) -> Node:
    """The node that shows the matcher's topics, and those of the back-end where it runs."""
    shown = {name: topics[name] for name in VIEWED}
    image = topics["left/image_rect" if is_on(given["stereo"]) else "image"]
    shown |= {"image": image, "image/compressed": f"{image}/compressed"}
    if is_on(given["stereo"]):
        shown["camera_info"] = topics["left/camera_info"]
    if not given["status"].startswith("~"):
        shown["matcher/status"] = given["status"]
    return Node(
        package="superglue_ros",
        executable="viewer",
        name="viewer",
        namespace=given["namespace"],
        output="screen",
        parameters=[
            {
                "image_transport": given["image_transport"] or "raw",
                "save": given["viewer_file"],
                "use_sim_time": is_on(given["use_sim_time"]),
            }
        ],
        remappings=[(name, topic) for name, topic in shown.items() if topic != name],
    )


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
            switch("use_sim_time", "false", "Follow /clock, for a bag or a simulator."),
            switch(
                "autostart",
                "true",
                "Configure and activate the node; false leaves it to ros2 lifecycle.",
            ),
            switch("respawn", "false", "Start the node again two seconds after it died."),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Least severity that is logged.",
            ),
            DeclareLaunchArgument(
                "enclave", default_value="", description="SROS2 enclave of the node, as /matcher."
            ),
            *viewer_arguments(),
            switch(
                "stereo",
                "",
                "Take rectified stereo pairs. Empty: as params_file says (inputs.stereo).",
            ),
            *(
                DeclareLaunchArgument(
                    name,
                    default_value="",
                    description=f"Input: {text}. true, false, or its topic. "
                    f"Empty: as params_file says (inputs.{name}).",
                )
                for name, text in OPTIONAL_INPUTS.items()
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
                DeclareLaunchArgument(name, default_value=f"~/{name}", description=text)
                for name, text in PRIVATE_TOPICS.items()
            ),
            *(
                DeclareLaunchArgument(key, default_value=name, description=text)
                for key, (name, text) in STEREO_TOPICS.items()
            ),
            OpaqueFunction(function=start),
        ]
    )
