"""The errors of `igq` that a caller may catch, drawn as a tree.

IgqError
+-- InvalidArgumentError     a value breaks a stated rule (also a ValueError)
+-- InfeasibleBudgetError    no allocation is that cheap, or that small
+-- UnsupportedModelError    a model whose layers cannot be listed or quantized
+-- WeightsError             weights that do not fit the model, or are not finite
+-- ArtifactError            a file that cannot be read, written or understood
+-- ProfileError             a latency table that cannot be read, or is of another model
+-- RuntimeLibraryError      the compiled runtime refuses its input, or is not this version's
"""

LONGEST = 3000
"""Characters of the longest message (our choice)."""


def readable(message: str) -> str:
    r"""Return a message that can be printed, whatever names and values of a file are in it.

    What a terminal would act on is escaped, and the end of a very long message left out.

    >>> readable("a\x1b[2J is unknown"), len(readable("a" * 10**6))
    ('a\\x1b[2J is unknown', 3004)
    """
    short = message if len(message) <= LONGEST else f"{message[:LONGEST]} ..."
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1]
        for letter in short
    )


class IgqError(Exception):
    """The root of every error that is the caller's to mend; its message can be printed.

    >>> import igq
    >>> try:
    ...     igq.create("no_such_model")
    ... except igq.IgqError as error:
    ...     print(type(error).__name__)
    UnsupportedModelError
    """

    def __str__(self) -> str:
        return readable(super().__str__())


class InvalidArgumentError(IgqError, ValueError):
    """A value breaks a rule; the message names the rule, then the value.

    >>> import igq
    >>> igq.uniform([], 0)
    Traceback (most recent call last):
    igq.errors.InvalidArgumentError: `num_groups` must be at least 1, but got 0.
    """


class InfeasibleBudgetError(IgqError):
    """No allocation fits the budget, or the most a model may take; the message names the least.

    >>> import igq
    >>> one, two = igq.Setting(num_groups=1), igq.Setting(num_groups=2)
    >>> table = igq.CostTable(igq.Unit.BOPS, {"fc1": {one: 8, two: 9}}, fixed=2)
    >>> table.limit(9)
    ... # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    igq.errors.InfeasibleBudgetError: `budget` must be at least the cheapest possible
    allocation's 10 BOPs, but got budget=9.
    """


class UnsupportedModelError(IgqError):
    """The model is not one that can be quantized; the message says which part and why.

    >>> import igq, torch
    >>> igq.layers(torch.nn.ReLU())  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    igq.errors.UnsupportedModelError: the model must be a timm VisionTransformer,
    VisionTransformerDistilled, SwinTransformer, Beit or Eva, but got a ReLU.
    """


class WeightsError(IgqError):
    """The weights do not fit the model, or hold values that are not finite.

    >>> from pathlib import Path
    >>> import igq
    >>> igq.create("vit_tiny_patch16_224", weights=Path("none.pth"))
    ... # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    igq.errors.WeightsError: none.pth could not be read as weights: ...
    """


class ArtifactError(IgqError):
    """An exported model that cannot be written, or cannot be read back.

    >>> import igq
    >>> igq.load("nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    igq.errors.ArtifactError: nowhere could not be read as an artifact: manifest.json: ...
    """


class ProfileError(IgqError):
    """A latency table that breaks a rule, or that is of another model or scheme.

    >>> from igq.costs.profiles import profile_of
    >>> profile_of({"schema": 7})
    Traceback (most recent call last):
    igq.errors.ProfileError: `schema` of a latency table must be 1, but got 7.
    """


class RuntimeLibraryError(IgqError):
    """The compiled runtime refuses its input, or is not the one of this version.

    >>> import torch
    >>> from igq.runtime import operators
    >>> panel = torch.zeros(64, dtype=torch.uint8)
    >>> operators.linear(torch.zeros(1, 1, 8), panel, 8)
    ... # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    igq.errors.RuntimeLibraryError: a panel must have the mark of its operator, but has not.
    """


class IgqWarning(UserWarning):
    """Something works, but not as well as it could; the message says what to do.

    >>> issubclass(IgqWarning, UserWarning)
    True
    """
