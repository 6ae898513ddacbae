"""Draws worlds with OpenGL, on a GPU or in software, without a window.

The picture is linear: what a surface sends to the camera, before exposure. Depth comes from a
second pass without multisampling, so that each value is that of its pixel's centre.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.world import World

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

PACKAGES = "libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri"
"""Debian's packages of EGL, and of OpenGL in software."""

_NEAR_M, _FAR_M = 0.05, 1000.0
_SAMPLES = 4
_ANISOTROPY = 8.0
_SOFTWARE = ("llvmpipe", "softpipe", "SWR", "swrast")
_LAYOUT = "3f 2f 2f 3f 1f 1f 1f"

_VERTEX_SHADER = """
#version 330
uniform mat4 camera;      // world to camera, z forward
uniform mat4 projection;
in vec3 position;
in vec2 texture_uv;
in vec2 light_uv;
in vec3 normal;
in float brightness;
in float picture;
in float page;
out vec2 at_texture;
out vec2 at_light;
out vec3 facing;
out float bright;
out float depth;
flat out float layer;
flat out float light_layer;
void main() {
    vec4 seen = camera * vec4(position, 1.0);
    gl_Position = projection * seen;
    at_texture = texture_uv;
    at_light = light_uv;
    facing = normal;
    bright = brightness;
    depth = seen.z;
    layer = picture;
    light_layer = page;
}
"""

_SURFACE = """
#version 330
uniform sampler2DArray textures;
in vec2 at_texture;
flat in float layer;
vec2 surface() {          // grey value and opacity; holes are left out
    vec2 value = texture(textures, vec3(at_texture, layer)).rg;
    if (value.g < 0.5) discard;
    return value;
}
"""

_COLOUR_SHADER = (
    _SURFACE
    + """
uniform sampler2DArray lights;
uniform float ambient;
uniform vec3 sun;         // towards the light, times its strength
in vec2 at_light;
in vec3 facing;
in float bright;
flat in float light_layer;
out float radiance;
void main() {
    float grey = surface().r;
    float light = light_layer < 0.0 ? bright : texture(lights, vec3(at_light, light_layer)).r;
    float direct = max(dot(normalize(facing + vec3(1e-6)), sun), 0.0);
    radiance = grey * (ambient + light + direct);
}
"""
)

_DEPTH_SHADER = (
    _SURFACE
    + """
in float depth;
out float metres;
void main() {
    surface();
    metres = depth;
}
"""
)

# By their full names: those without a number come with packages for developers only.
_OPENGL = ("libGL.so.1", "libOpenGL.so.0")

_opener = 0  # the process that has contexts


@dataclass(frozen=True)
class Light:
    """Light of one view, besides the lightmaps, whose values are in [0, 1].

    ``ambient`` comes from everywhere, ``sun`` (3,) from one direction: a vector towards it, as long
    as it is strong. ``sky`` is the radiance where nothing is.
    """

    ambient: float = 0.1
    sun: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sky: float = 0.5


class Renderer:
    """Draws views of ``width`` x ``height`` pixels of one world at a time.

    Raises :class:`DataError` where there is no moderngl or no OpenGL 3.3 by EGL.
    """

    def __init__(self, width: int, height: int) -> None:
        gl = open_context()
        self._gl, self._size = gl, (width, height)
        self._colour = gl.program(vertex_shader=_VERTEX_SHADER, fragment_shader=_COLOUR_SHADER)
        self._depth = gl.program(vertex_shader=_VERTEX_SHADER, fragment_shader=_DEPTH_SHADER)
        size = self._size
        samples = min(_SAMPLES, gl.max_samples)
        self._drawn = gl.framebuffer(
            [gl.renderbuffer(size, 1, samples=samples, dtype="f2")],
            gl.depth_renderbuffer(size, samples=samples),
        )
        self._resolved = gl.framebuffer([gl.renderbuffer(size, 1, dtype="f2")])
        self._metres = gl.framebuffer(
            [gl.renderbuffer(size, 1, dtype="f4")], gl.depth_renderbuffer(size)
        )
        gl.enable(gl.DEPTH_TEST)
        self._loaded: list[Any] = []
        self._world: World | None = None

    def load(self, world: World) -> None:
        """Put ``world`` in the place of the one before it."""
        if world is not self._world:
            with self._gl:  # another renderer of the process may have been at work
                self._load(world)

    def _load(self, world: World) -> None:
        for resource in self._loaded:
            resource.release()
        gl, mesh = self._gl, world.mesh
        columns = (
            mesh.positions, mesh.texture_uv, mesh.light_uv, mesh.normals, mesh.brightness[:, None],
            mesh.texture[:, None], mesh.light[:, None],
        )  # fmt: skip
        vertices = gl.buffer(np.concatenate(columns, axis=1, dtype=np.float32).tobytes())
        triangles = gl.buffer(mesh.triangles.astype("<i4").tobytes())
        names = ("position", "texture_uv", "light_uv", "normal", "brightness", "picture", "page")
        drawings = []
        for program in (self._colour, self._depth):
            # The driver leaves out what a program does not use.
            used = [name if name in program else None for name in names]
            sizes = _LAYOUT.split()
            layout = " ".join(
                size if name else f"{4 * int(size[0])}x"
                for size, name in zip(sizes, used, strict=True)
            )
            content = [(vertices, layout, *(name for name in used if name))]
            drawings.append(gl.vertex_array(program, content, triangles))
        self._draw_colour, self._draw_depth = drawings
        count, side = world.textures.shape[:2]
        textures = gl.texture_array((side, side, count), 2, world.textures.tobytes(), alignment=1)
        textures.build_mipmaps()
        textures.filter = (gl.LINEAR_MIPMAP_LINEAR, gl.LINEAR)
        # In software one oblique floor with anisotropy can take a minute.
        software = any(word in gl.info["GL_RENDERER"] for word in _SOFTWARE)
        textures.anisotropy = 1.0 if software else _ANISOTROPY
        pages = world.lights if len(world.lights) else np.zeros((1, 1, 1), np.uint8)
        size = (pages.shape[2], pages.shape[1], len(pages))
        lights = gl.texture_array(size, 1, np.ascontiguousarray(pages).tobytes(), alignment=1)
        lights.filter = (gl.LINEAR, gl.LINEAR)
        lights.repeat_x = lights.repeat_y = False
        self._textures, self._lights = textures, lights
        self._loaded = [*drawings, vertices, triangles, textures, lights]
        self._world = world

    def depth(self, matrix: Array, T_world_camera: Array) -> Floats:
        """Depth along the optical axis (H, W) [m], 0 where nothing is.

        ``matrix`` (3, 3) with pixel centres at whole numbers.
        """
        self._check_loaded()
        with self._gl:
            self._aim(self._depth, matrix, T_world_camera)
            self._metres.use()
            self._metres.clear(depth=1.0)
            self._draw_depth.render()
            return self._read(self._metres, "f4").copy()

    def radiance(self, matrix: Array, T_world_camera: Array, light: Light = Light()) -> Floats:
        """What surfaces send to the camera (H, W), ``light.sky`` where nothing is."""
        self._check_loaded()
        with self._gl:
            self._aim(self._colour, matrix, T_world_camera)
            self._lights.use(1)
            self._colour["lights"].value = 1
            self._colour["ambient"].value = light.ambient
            self._colour["sun"].value = tuple(light.sun)
            self._drawn.use()
            self._drawn.clear(light.sky, light.sky, light.sky, 1.0, depth=1.0)
            self._draw_colour.render()
            self._gl.copy_framebuffer(self._resolved, self._drawn)
            return self._read(self._resolved, "f2").astype(np.float32)

    def _check_loaded(self) -> None:
        if self._world is None:
            raise DataError("no world is loaded: call load first")

    def _aim(self, program: Any, matrix: Array, T_world_camera: Array) -> None:
        # OpenGL reads matrices column by column.
        program["camera"].write(np.linalg.inv(T_world_camera).T.astype("<f4").tobytes())
        program["projection"].write(self._projection(matrix).T.astype("<f4").tobytes())
        program["textures"].value = 0
        self._textures.use(0)

    def _projection(self, matrix: Array) -> Array:
        """From camera to clip coordinates.

        OpenGL's window counts pixels from their edges, so centres lie at + 0.5. Its rows go
        upwards; with y not turned round, row 0 of what is read is the top of the image.
        """
        width, height = self._size
        projection = np.zeros((4, 4))
        projection[0] = 2 * np.array([matrix[0, 0], matrix[0, 1], matrix[0, 2] + 0.5, 0]) / width
        projection[1] = 2 * np.array([0, matrix[1, 1], matrix[1, 2] + 0.5, 0]) / height
        projection[0, 2] -= 1
        projection[1, 2] -= 1
        span = _FAR_M - _NEAR_M
        projection[2, 2:] = (_FAR_M + _NEAR_M) / span, -2 * _FAR_M * _NEAR_M / span
        projection[3, 2] = 1
        return projection

    def _read(self, target: Any, dtype: str) -> NDArray[np.floating]:
        width, height = self._size
        content = target.read(components=1, dtype=dtype, alignment=1)
        return np.frombuffer(content, f"<{dtype}").reshape(height, width)


def renderer_of(width: int, height: int) -> Renderer:
    """The process's own renderer of that size: contexts are slow to make, and are not shared."""
    return _renderer(os.getpid(), width, height)


@lru_cache(maxsize=4)
def _renderer(_process: int, width: int, height: int) -> Renderer:
    return Renderer(width, height)


def open_context() -> Any:
    """An OpenGL context without a window.

    Raises :class:`DataError` naming what to install, and in a child of a process that had one:
    drivers are not made for that and would wait for ever.
    """
    global _opener
    if _opener not in (0, os.getpid()):
        raise DataError(
            "this process was forked from one that draws worlds itself: let only the workers draw "
            "(loop.workers), or start processes by spawn"
        )
    try:
        import moderngl
    except ImportError as error:
        raise DataError("worlds are drawn by moderngl: pip install moderngl") from error
    reason = ""
    for library in _OPENGL:
        options: dict[str, Any] = {"backend": "egl", "libgl": library, "libegl": "libEGL.so.1"}
        try:
            context = moderngl.create_context(standalone=True, **options)
        except Exception as error:  # moderngl raises nothing narrower
            reason = reason or str(error)
        else:
            _opener = os.getpid()
            return context
    raise DataError(
        f"worlds need OpenGL 3.3 by EGL ({reason}): apt install {PACKAGES} (a GPU's driver brings "
        f"its own; these draw in software)"
    )
