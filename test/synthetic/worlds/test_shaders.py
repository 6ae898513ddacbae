from superglue_ros.synthetic.worlds.shaders import Shader, parse_shaders

from .small_map import SCRIPT


def test_the_first_picture_of_a_shader_is_its_texture():
    shaders = parse_shaders(SCRIPT.decode())
    assert shaders["textures/fence"] == Shader(
        pictures=("textures/fence_picture.tga", "textures/absent"), alpha_tested=True
    )
    # Below it lies the lightmap, which is no picture of the surface.
    assert shaders["textures/curve"] == Shader(pictures=("textures/wall.jpg",))
    assert shaders["textures/glow"].translucent


def test_sky_and_surfaces_for_the_compiler_are_hidden():
    for word in ("sky", "nodraw", "fog"):
        script = f"Textures/X\n{{\n surfaceParm {word.upper()}\n surfaceparm nolightmap\n}}"
        assert parse_shaders(script)["textures/x"].hidden
    assert not parse_shaders("textures/x\n{\n surfaceparm nomarks\n}")["textures/x"].hidden


def test_reflections_come_after_other_pictures_and_animations_begin_with_their_first():
    script = """
    textures/a
    {
        { map textures/env.tga
          tcGen environment }
        { animMap 5 textures/one.tga textures/two.tga
          blendfunc add }
    }
    """
    assert parse_shaders(script)["textures/a"].pictures == ("textures/one.tga", "textures/env.tga")


def test_comments_odd_braces_and_rubbish_are_passed_over():
    script = '/* { */ }}\n"textures/q" // {\n{ { map "textures/q b.tga"\n } }\n junk { { map'
    assert parse_shaders(script)["textures/q"].pictures == ("textures/q b.tga",)
    assert parse_shaders("") == {}
