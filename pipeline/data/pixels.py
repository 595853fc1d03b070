"""The pixels of an image as 8-bit values, whatever kind of file they come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from pipeline.data.folders import formats
from pipeline.errors import DataError

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


def read_image(file: Path | IO[bytes] | BytesIO) -> Image.Image:
    """Open an image and read its pixels; a file's content decides its format, not its name.

    Raises:
        OSError: it is no image of a format that PIL reads by itself, or is cut off.
        Image.DecompressionBombError: it has more pixels than PIL takes.
    """
    with Image.open(file, formats=sorted(set(formats().values()))) as opened:
        opened.load()
        return opened


@contextmanager
def naming(place: object) -> Iterator[None]:
    """Raise whatever goes wrong with an image as one error that names it.

    Raises:
        DataError: something went wrong.

    >>> with naming("cat.png"):
    ...     raise OSError("it is cut off")
    Traceback (most recent call last):
    pipeline.errors.DataError: every image must be readable, but cat.png is not: it is cut off
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged files raise nearly everything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"every image must be readable, but {place} is not: {reason}") from error


def eight_bits(image: Image.Image, mode: str) -> Image.Image:
    r"""Return an image in mode `L` or `RGB`: 16 bits divided by 257, transparency on white.

    Raises:
        ValueError: it has values whose range is not known: 32-bit integers, or floats.

    >>> sixteen = Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16))
    >>> eight_bits(sixteen, "L").tobytes()
    b'\x00\x01\xff'
    >>> eight_bits(Image.new("RGBA", (1, 1), (0, 0, 0, 51)), "RGB").getpixel((0, 0))
    (204, 204, 204)
    """
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        words = "32-bit integers" if image.mode == "I" else "floats"
        raise ValueError(f"its pixels must have 8 or 16 bits, but are {words}; convert it")
    if has_alpha(image):
        over = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, over).convert(mode)
    return image.convert(mode)


def has_alpha(image: Image.Image) -> bool:
    """Return whether some pixel of an image is transparent."""
    if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
        return False
    least, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(least < 255)  # type: ignore[operator]  # of one channel, a pair of numbers
