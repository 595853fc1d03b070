"""The one value that says how a model is quantized."""

from igq import Assignment, InputMethod, Rotation, Scheme, SoftmaxMethod, WeightMethod


def test_the_paper_s_scheme_has_every_choice_as_in_the_paper() -> None:
    assert (
        Scheme(
            InputMethod.CHANNELS,
            SoftmaxMethod.ROWS,
            Assignment.NEAREST,
            Rotation.NONE,
            WeightMethod.NEAREST,
        )
        == Scheme.PAPER
    )


def test_the_default_is_the_best() -> None:
    assert Scheme() == Scheme.BEST != Scheme.PAPER


def test_a_rotation_includes_layers_by_their_shape() -> None:
    shapes = [(8, 24), (8, 8), (24, 8)]
    included = {r: [r.includes(*shape) for shape in shapes] for r in Rotation}
    assert included == {
        Rotation.NONE: [False, False, False],
        Rotation.WIDE: [True, False, False],
        Rotation.ALL: [True, True, True],
    }
