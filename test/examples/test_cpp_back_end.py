"""The messages in C++: another package finds and compiles them, and the example chains poses right.

The example's node itself needs rclcpp, which not every environment has; what is independent of it
is compiled against the generated headers and run.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/cpp_back_end"
CMAKE = f"""
cmake_minimum_required(VERSION 3.20)
project(consumer CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(superglue_ros REQUIRED)
add_executable(consumer main.cpp)
target_compile_options(consumer PRIVATE -Wall -Wextra -Werror)
target_include_directories(consumer PRIVATE {EXAMPLE}/include)
target_link_libraries(consumer superglue_ros::superglue_ros__rosidl_generator_cpp)
"""
MAIN = """
#include <cassert>
#include <cstdio>
#include "cpp_back_end/pose_chain.hpp"
#include "superglue_ros/msg/matches.hpp"

using superglue_ros::msg::RelativePose;

RelativePose step(unsigned reference, unsigned query, unsigned char status = RelativePose::VALID)
{
  RelativePose message;  // a quarter turn about z and one metre along x
  message.reference.id = reference;
  message.query.id = query;
  message.status = status;
  message.pose.pose.position.x = 1;
  message.pose.pose.orientation.z = message.pose.pose.orientation.w = std::sqrt(0.5);
  return message;
}

int main()
{
  superglue_ros::msg::Matches matches;
  matches.u_ref.resize(3);
  if (matches.u_ref.size() != 3 || matches.kind != superglue_ros::msg::Matches::KEYFRAME) return 1;
  cpp_back_end::PoseChain chain;
  if (chain.add(step(1, 2, RelativePose::FEW))) return 2;  // has no pose
  chain.add(step(1, 2));
  if (chain.add(step(7, 8))) return 3;  // of another map
  const auto pose = chain.add(step(2, 3));
  if (!pose) return 4;
  const auto & [q, t] = *pose;
  std::printf("%.3f %.3f %.3f, %.3f %.3f", t[0], t[1], t[2], q[2], q[3]);
}
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_another_package_compiles_the_messages(tmp_path: Path) -> None:
    pytest.importorskip("superglue_ros.msg", reason="the messages are not built")
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    (tmp_path / "main.cpp").write_text(MAIN)
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    consumer = tmp_path / "build/consumer"
    result = subprocess.run([consumer], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    # Two quarter turns are a half turn, and the second metre goes along y.
    assert result.stdout == "1.000 1.000 0.000, 1.000 0.000"
