// Takes matches and relative poses, publishes the pose of every frame and how often landmarks are
// seen. `ros2 run cpp_back_end back_end`
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "cpp_back_end/pose_chain.hpp"
#include "geometry_msgs/msg/pose_stamped.hpp"
#include "rclcpp/rclcpp.hpp"
#include "superglue_ros/msg/matches.hpp"

using superglue_ros::msg::Matches;
using superglue_ros::msg::RelativePose;

class BackEnd : public rclcpp::Node
{
public:
  BackEnd()
  : Node("cpp_back_end")
  {
    // The matcher's outputs are reliable; depth 100 bridges the time that an optimiser takes.
    const auto qos = rclcpp::QoS(100).reliable();
    pose_ = create_publisher<geometry_msgs::msg::PoseStamped>("pose", qos);
    matches_ = create_subscription<Matches>(
      "matches", qos, [this](const Matches & message) {take(message);});
    relative_ = create_subscription<RelativePose>(
      "relative_pose", qos, [this](const RelativePose & message) {take(message);});
  }

private:
  void take(const Matches & message)
  {
    for (std::size_t k = 0; k < message.track_ids.size(); ++k) {
      if (message.inlier[k] && message.track_ids[k] >= 0) {
        ++observations_[message.track_ids[k]];
      }
    }
    // A closed loop tells which landmarks were one all the time.
    for (std::size_t k = 0; k < message.merged_from.size(); ++k) {
      observations_[message.merged_into[k]] += observations_[message.merged_from[k]];
      observations_.erase(message.merged_from[k]);
    }
  }

  void take(const RelativePose & message)
  {
    const auto found = chain_.add(message);
    if (!found) {
      return;
    }
    geometry_msgs::msg::PoseStamped pose;
    pose.header.stamp = message.query.stamp;
    pose.header.frame_id = "world";
    pose.pose.position.x = found->t[0];
    pose.pose.position.y = found->t[1];
    pose.pose.position.z = found->t[2];
    pose.pose.orientation.x = found->q[0];
    pose.pose.orientation.y = found->q[1];
    pose.pose.orientation.z = found->q[2];
    pose.pose.orientation.w = found->q[3];
    pose_->publish(pose);
    RCLCPP_INFO(
      get_logger(), "frame %lu: %u inliers, %zu landmarks",
      static_cast<unsigned long>(message.query.id), message.num_inliers, observations_.size());
  }

  cpp_back_end::PoseChain chain_;
  std::unordered_map<std::int64_t, std::size_t> observations_;
  rclcpp::Publisher<geometry_msgs::msg::PoseStamped>::SharedPtr pose_;
  rclcpp::Subscription<Matches>::SharedPtr matches_;
  rclcpp::Subscription<RelativePose>::SharedPtr relative_;
};

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<BackEnd>());
  rclcpp::shutdown();
  return 0;
}
