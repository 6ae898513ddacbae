// Poses of all frames in the first one, chained from relative poses.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "superglue_ros/msg/frame_id.hpp"
#include "superglue_ros/msg/relative_pose.hpp"

namespace cpp_back_end
{

/// Rotation as a unit quaternion x y z w, and translation; maps camera points to the world.
struct Pose
{
  std::array<double, 4> q{0, 0, 0, 1};
  std::array<double, 3> t{0, 0, 0};
};

inline std::array<double, 3> rotate(const std::array<double, 4> & q, const std::array<double, 3> & v)
{
  // v + 2 u x (u x v + w v), u the vector part
  const auto [x, y, z, w] = q;
  const double a = y * v[2] - z * v[1] + w * v[0];
  const double b = z * v[0] - x * v[2] + w * v[1];
  const double c = x * v[1] - y * v[0] + w * v[2];
  return {v[0] + 2 * (y * c - z * b), v[1] + 2 * (z * a - x * c), v[2] + 2 * (x * b - y * a)};
}

/// First `b`, then `a`.
inline Pose compose(const Pose & a, const Pose & b)
{
  const auto [x, y, z, w] = a.q;
  const auto [i, j, k, r] = b.q;
  const auto moved = rotate(a.q, b.t);
  return {
    {w * i + x * r + y * k - z * j, w * j - x * k + y * r + z * i, w * k + x * j - y * i + z * r,
      w * r - x * i - y * j - z * k},
    {a.t[0] + moved[0], a.t[1] + moved[1], a.t[2] + moved[2]}};
}

/// Not thread-safe. Without metric scale (`scale_known`) every step counts as one unit long: a real
/// back-end triangulates and adjusts instead.
class PoseChain
{
public:
  using Message = superglue_ros::msg::RelativePose;
  using Key = std::tuple<std::string, std::uint16_t, std::uint64_t>;

  /// The pose of the message's query in the world; nothing where it has none, or where the reference
  /// is unknown. The first reference of all is the origin.
  std::optional<Pose> add(const Message & message)
  {
    const bool usable = message.status == Message::VALID || message.status == Message::PLANAR;
    if (!usable || (!poses_.empty() && poses_.count(key(message.reference)) == 0)) {
      return std::nullopt;
    }
    const auto & p = message.pose.pose.position;
    const auto & o = message.pose.pose.orientation;
    const Pose reference = poses_[key(message.reference)];  // the identity where it is the first
    const Pose found = compose(reference, {{o.x, o.y, o.z, o.w}, {p.x, p.y, p.z}});
    return poses_.emplace(key(message.query), found).first->second;
  }

private:
  static Key key(const superglue_ros::msg::FrameId & frame)
  {
    return {frame.robot, frame.camera_index, frame.id};
  }

  std::map<Key, Pose> poses_;
};

}  // namespace cpp_back_end
