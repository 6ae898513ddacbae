"""The build files agree with each other and with what is there."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

import superglue_ros

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_XML = ElementTree.parse(ROOT / "package.xml").getroot()
CMAKE = (ROOT / "CMakeLists.txt").read_text()
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
ENTRIES = dict(
    line.split(" = ")
    for line in SETUP["options.entry_points"]["console_scripts"].strip().splitlines()
)
INTERFACES = sorted([*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv")])


def requirements(name):
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def test_there_is_one_version():
    assert PACKAGE_XML.findtext("version") == superglue_ros.__version__


def test_every_interface_is_built():
    listed = set(re.findall(r"^ +((?:msg|srv)/\w+\.\w+)$", CMAKE, re.MULTILINE))
    assert listed == {file.relative_to(ROOT).as_posix() for file in INTERFACES}


def test_what_interfaces_use_is_declared():
    used = {
        match
        for file in INTERFACES
        for match in re.findall(r"^(\w+)/\w+", file.read_text(), re.MULTILINE)
    }
    declared = {element.text for element in PACKAGE_XML.iter("depend")}
    assert used <= declared
    assert all(f"find_package({name} REQUIRED)" in CMAKE for name in used)


@pytest.mark.parametrize("file", INTERFACES, ids=lambda file: file.name)
def test_every_field_is_explained(file):
    """A field has a comment: above it, beside it, or above the group it stands in."""
    explained = False
    for line in file.read_text().splitlines():
        code, _, comment = line.partition("#")
        if not line.strip() or code.strip() == "---":
            explained = False
        elif comment.strip():
            explained = True
        elif code.strip() and "=" not in code:
            is_nested = code.split()[0] in {"FrameId", "Matches", "RelativePose", "std_msgs/Header"}
            assert explained or is_nested, f"{file.name}: no comment for {code.strip()!r}"


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_executable_has_its_function(name):
    module, function = ENTRIES[name].split(":")
    source = ROOT / (module.replace(".", "/") + ".py")
    functions = {
        node.name
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert function in functions


def test_cmake_reads_every_executable_from_setup_cfg():
    pattern = re.search(r'set\(entry_point "(.*)"\)', CMAKE)[1].replace(
        "${PROJECT_NAME}", "superglue_ros"
    )
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    assert {m[1] for line in lines if (m := re.match(pattern, line))} == set(ENTRIES)


def test_ros_packages_that_are_imported_are_declared():
    declared = {
        element.text for tag in ("depend", "exec_depend") for element in PACKAGE_XML.iter(tag)
    }
    known = declared | {"message_filters", "rclpy"}
    sources = [*(ROOT / "superglue_ros/ros").rglob("*.py"), *ROOT.glob("launch/*.py")]
    for file in sources:
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            head = (module or "").split(".")[0]
            if head.endswith(("_msgs", "_interfaces", "_srvs")) or head.startswith("launch"):
                assert head in known, f"{file.name} imports {head}, package.xml has no such depend"


def test_setup_cfg_and_requirements_name_the_same_packages():
    installed = {
        re.split(r"[<>=]", line)[0]
        for line in SETUP["options"]["install_requires"].strip().splitlines()
    }
    assert installed == set(requirements("runtime.txt"))


@pytest.mark.parametrize("name", ["runtime.txt", "ros.txt", "dev.txt"])
def test_every_requirement_is_pinned(name):
    pinned = {re.split("==", line)[0].lower() for line in requirements("constraints.txt")}
    assert {line.lower() for line in requirements(name)} - {"setuptools"} <= pinned


def test_the_working_tree_comes_before_the_overlay_that_was_built_of_it():
    env = {**os.environ, "SUPERGLUE_ROS_ROOT": str(ROOT), "PYTHONPATH": f"/somewhere:{ROOT}:/else"}
    shown = subprocess.run(
        ["sh", "-c", '. scripts/env.sh; . scripts/env.sh; echo "$PYTHONPATH"'],
        cwd=ROOT, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    paths = shown.stdout.strip().split(":")
    assert (paths[0], paths[-2:]) == (str(ROOT), ["/somewhere", "/else"])
    assert len(paths) == len(set(paths))
    assert any(path.startswith(f"{ROOT}/install") for path in paths[1:-2])


def test_the_changelog_is_one_that_catkin_tools_read():
    text = (ROOT / "CHANGELOG.rst").read_text().splitlines()
    assert text[1] == "Changelog for package superglue_ros"
    assert text[0] == text[2] == "^" * len(text[1])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """From a copy, because setuptools leaves its traces in the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignore = shutil.ignore_patterns(".*", "build*", "install*", "log*", "test", "*_output")
    shutil.copytree(ROOT, source, ignore=ignore)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run([*pip, "-w", folder, source], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_a_wheel_has_everything(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    expected = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "superglue_ros").rglob("*")
        if file.is_file() and (file.suffix == ".py" or file.parent.name == "weights")
    }
    assert expected <= set(names)
    shared = {name.split("/data/share/superglue_ros/")[-1] for name in names if "/data/" in name}
    assert {"package.xml", "config/matcher.yaml", "launch/matcher.launch.py"} <= shared
    assert {file.relative_to(ROOT).as_posix() for file in INTERFACES} <= shared
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(entry_points).decode()
    assert all(f"{name} = {target}" in text for name, target in ENTRIES.items())


NOT_THERE = {"superglue_ros.msg", "superglue_ros.srv"} | {
    element.text
    for tag in ("depend", "exec_depend")
    for element in PACKAGE_XML.iter(tag)
    if not element.text.startswith("python3-")
}
# The commands of a fresh environment, in one process, where nothing of ROS can be imported.
WITHOUT_ROS = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if {{name, name.split(".")[0]}} & {NOT_THERE!r}:
            raise ImportError("no ROS here: " + name)
sys.meta_path.insert(0, Refuse())

import pathlib
import superglue_ros
from superglue_ros.cli import main
here = pathlib.Path.cwd()
assert pathlib.Path(superglue_ros.__file__).is_relative_to(here / "site"), superglue_ros.__file__
quick = ["--set", "front_end.name=sift", "--set", "matcher.name=ratio", "--set", "refinement=none"]
assert main(["demo", "--no-ros", "--frames", "2", "--output", "demo", *quick]) == 0
for name in ("summary.json", "matches_1.png", "epipolar_error_1.png", "errors_over_time.png"):
    assert (here / "demo" / name).is_file(), name
assert main(["match", "demo/matches_1.png", "demo/matches_1.png", *quick]) == 0
assert (here / "match_output/matches_1.png_matches_1.png.npz").is_file()
homography = ["evaluate", "homography", "--images", "match_output", "--pairs", "1"]
assert main([*homography, "--output", "table", "--no-pictures", *quick]) == 0
assert not sys.modules.keys() & {NOT_THERE!r}
"""


def test_an_installed_wheel_runs_without_ros(wheel, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", "site"]
    subprocess.run([*pip, wheel], cwd=tmp_path, check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = [sys.executable, "-c", WITHOUT_ROS]
    result = subprocess.run(code, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "matches" in result.stdout
