"""Codes of 2 to 8 bits, packed densely into bytes.

The codes of a tensor follow one another in row-major order, each with its lowest bit first; bit k
of this stream is bit k % 8, counted from the lowest, of byte k // 8. The bits that fill up the last
byte are 0.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from igq.arithmetic.affine import check_bits
from igq.errors import InvalidArgumentError


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that this many codes take.

    >>> packed_bytes(5, bits=3)
    2
    """
    return -(-count * bits // 8)


def pack(codes: UInt8[Tensor, "..."], bits: int) -> UInt8[Tensor, " bytes"]:
    """Pack codes, each from 0 to 2^bits - 1, into as few bytes as hold them.

    Raises:
        InvalidArgumentError: `bits` out of range, or a code that needs more of them.

    >>> pack(torch.tensor([1, 2, 3], dtype=torch.uint8), bits=4).tolist()
    [33, 3]
    """
    check_bits(bits)
    if codes.numel() and int(codes.max()) >= 2**bits:
        raise InvalidArgumentError(
            f"a code must be below {2**bits}, as it has {bits} bits, but got {int(codes.max())}."
        )
    flat = codes.detach().cpu().contiguous().view(-1, 1).numpy()
    stream = np.unpackbits(flat, axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(stream, bitorder="little"))


def unpack(
    packed: UInt8[Tensor, " bytes"], bits: int, shape: Sequence[int]
) -> UInt8[Tensor, "..."]:
    """Return the codes of a tensor of this shape.

    Raises:
        InvalidArgumentError: `bits` out of range, more or fewer bytes than the codes take, or a
            filling bit that is not 0.

    >>> unpack(torch.tensor([33, 3], dtype=torch.uint8), bits=4, shape=(3,)).tolist()
    [1, 2, 3]
    """
    count = math.prod(shape)
    if len(packed) != (wanted := packed_bytes(count, check_bits(bits))):
        raise InvalidArgumentError(
            f"{count} codes of {bits} bits must take {wanted} bytes, but got {len(packed)}."
        )
    filling = 8 * wanted - count * bits
    if filling and int(packed[-1]) >> (8 - filling):
        raise InvalidArgumentError("the bits after the last code must be 0, but are not.")
    stream = np.unpackbits(packed.cpu().numpy(), count=count * bits, bitorder="little")
    codes = np.packbits(stream.reshape(count, bits), axis=1, bitorder="little")
    return torch.from_numpy(codes).view(*shape)
