# Sourced, by bash or any POSIX shell: puts the shell into the environment the project runs in.
#
# With a ROS distribution sourced, that is the distribution plus `.venv-<distribution>`;
# otherwise `.venv`, which holds ROS itself. On top lies `install/` (`install-<distribution>/`), the
# colcon overlay with the generated messages. The repository comes before the overlay on PYTHONPATH, so the Python code
# that runs is always the working tree's; `superglue_ros/__init__.py` extends the package's path
# so that `superglue_ros.msg` is found in the overlay.
#
# Set by the caller: SUPERGLUE_ROS_ROOT, the repository.
# Sets: SUPERGLUE_ROS_DISTRIBUTION (empty: none sourced), SUPERGLUE_ROS_SUFFIX (of the folders that
# belong to it: "" or "-<distribution>"), SUPERGLUE_ROS_VENV, and the usual variables.

# shellcheck shell=sh

# A prefix on AMENT_PREFIX_PATH that holds rclpy and is not our own .venv is a distribution.
_superglue_ros_distribution() {
    _old_ifs=$IFS
    IFS=:
    for _prefix in ${AMENT_PREFIX_PATH:-}; do
        if [ -d "$_prefix/share/rclpy" ] && [ "$_prefix" != "$SUPERGLUE_ROS_ROOT/.venv" ]; then
            IFS=$_old_ifs
            echo "${ROS_DISTRO:-ros}"
            return
        fi
    done
    IFS=$_old_ifs
}

# Prepend $2 to the colon-separated variable named $1, once.
_superglue_ros_prepend() {
    _value= # assigned by eval, which shellcheck does not follow
    eval "_value=:\${$1:-}:"
    case "$_value" in # where it is already there, it moves to the front
        *":$2:"*) _value="${_value%%":$2:"*}:${_value#*":$2:"}" ;;
    esac
    _value=${_value#:} _value=${_value%:}
    eval "export $1=\"\$2\${_value:+:\$_value}\""
}

SUPERGLUE_ROS_DISTRIBUTION=$(_superglue_ros_distribution)
SUPERGLUE_ROS_SUFFIX=${SUPERGLUE_ROS_DISTRIBUTION:+-$SUPERGLUE_ROS_DISTRIBUTION}
SUPERGLUE_ROS_VENV=$SUPERGLUE_ROS_ROOT/.venv$SUPERGLUE_ROS_SUFFIX
export SUPERGLUE_ROS_ROOT SUPERGLUE_ROS_DISTRIBUTION SUPERGLUE_ROS_SUFFIX SUPERGLUE_ROS_VENV

_site=$(cd "$SUPERGLUE_ROS_VENV/lib" 2>/dev/null && echo python3.* || true)
_site=lib/$_site/site-packages
_overlay=$SUPERGLUE_ROS_ROOT/install$SUPERGLUE_ROS_SUFFIX/superglue_ros

if [ -z "$SUPERGLUE_ROS_DISTRIBUTION" ]; then
    # The environment is an ament prefix of its own. These are the library folders that the
    # wheels' start-up hook would add by executing Python a second time.
    for _libraries in "$SUPERGLUE_ROS_VENV/$_site"/ros_*.libs "$SUPERGLUE_ROS_VENV/lib"; do
        if [ -d "$_libraries" ]; then _superglue_ros_prepend LD_LIBRARY_PATH "$_libraries"; fi
    done
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
    _superglue_ros_prepend AMENT_PREFIX_PATH "$SUPERGLUE_ROS_VENV"
    _superglue_ros_prepend CMAKE_PREFIX_PATH "$SUPERGLUE_ROS_VENV"
fi
_superglue_ros_prepend AMENT_PREFIX_PATH "$_overlay"
_superglue_ros_prepend CMAKE_PREFIX_PATH "$_overlay"
_superglue_ros_prepend LD_LIBRARY_PATH "$_overlay/lib"
_superglue_ros_prepend PYTHONPATH "$_overlay/$_site"
_superglue_ros_prepend PYTHONPATH "$SUPERGLUE_ROS_ROOT"
_superglue_ros_prepend PATH "$_overlay/bin"
_superglue_ros_prepend PATH "$SUPERGLUE_ROS_VENV/bin"
export VIRTUAL_ENV="$SUPERGLUE_ROS_VENV"
# Tests and demos must not talk to a robot that happens to be on the same network.
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
unset _site _overlay _libraries _value _prefix _old_ifs
