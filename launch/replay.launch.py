"""Plays a bag to a matcher of its own, records what it says, and evaluates that.

ros2 launch superglue_ros replay.launch.py bag:=my_bag output:=results image:=/camera/image_raw

Ends by itself; output/report.html tells the rest. Nothing is dropped: the player waits for the
matcher. The same evaluation without DDS is `ros2 run superglue_ros evaluate bag`.
"""

import signal

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown, matches_action
from launch.events.process import SignalProcess
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from superglue_ros.ros.launching import parameter_files

RECORDED = ["/matches", "/relative_pose", "/matcher/features", "/matcher/status"]
ARGUMENTS = {
    "bag": ("", "rosbag2 directory, .mcap or .db3 file."),
    "output": ("replay_results", "Folder for the recorded topics and the results."),
    "image": ("/camera/image_raw", "Image topic of the bag."),
    "camera_info": ("/camera/camera_info", "Calibration topic of the bag."),
    "image_transport": ("raw", "raw, or compressed where the image topic is a CompressedImage."),
    "ground_truth": ("", "TUM, EuRoC or KITTI file; empty: the bag's own pose topic."),
    "params_file": ("", "YAML file of the matcher's parameters; empty: its defaults."),
    "rate": ("1.0", "Times the recorded pace, while the matcher keeps up."),
}


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = context.launch_configurations
    output = given["output"]
    recording = f"{output}/output_bag"
    compressed = given["image_transport"] == "compressed"
    played = [given["image"], given["camera_info"]]
    matcher = Node(
        package="superglue_ros",
        executable="matcher",
        output="screen",
        parameters=[
            *parameter_files(given["params_file"]),
            {
                "autostart": True,
                "use_sim_time": True,
                "image_transport": given["image_transport"],
                "intake.mode": "lossless",
                "inputs.silent_after": 600.0,
                "keyframes.relocalise_budget_s": 0.0,
            },
        ],
        remappings=[
            ("image/compressed" if compressed else "image", given["image"]),
            ("camera_info", given["camera_info"]),
        ],
    )
    recorder = Node(
        package="superglue_ros",
        executable="bag_recorder",
        output="screen",
        arguments=[recording, *RECORDED, "--overwrite"],
        parameters=[{"use_sim_time": True}],
    )
    player = Node(
        package="superglue_ros",
        executable="bag_player",
        output="log",
        arguments=[
            given["bag"],
            *("--topics", *played, "--frames", given["image"]),
            *("--wait-for", *played, *RECORDED),
            *("--max-in-flight", "2", "--rate", given["rate"]),
        ],
    )
    truth = ["--ground-truth", given["ground_truth"]] if given["ground_truth"] else []
    evaluation = ExecuteProcess(
        cmd=[
            *("superglue-ros", "evaluate", "bag", given["bag"], "--recorded", recording),
            *("--image", given["image"], "--camera-info", given["camera_info"]),
            *("--output", output, *truth),
        ],
        output="screen",
    )
    close_recording = EmitEvent(
        event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(recorder))
    )
    return [
        matcher,
        recorder,
        player,
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[close_recording])),
        RegisterEventHandler(OnProcessExit(target_action=recorder, on_exit=[evaluation])),
        RegisterEventHandler(
            OnProcessExit(target_action=evaluation, on_exit=[EmitEvent(event=Shutdown())])
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, description=text)
        if name == "bag"
        else DeclareLaunchArgument(name, default_value=value, description=text)
        for name, (value, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=replay)])
