"""Codes packed to their bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igq import InvalidArgumentError
from igq.formats.packing import pack, packed_bytes, unpack

BITS = st.integers(2, 8)


@given(BITS, st.data())
def test_codes_come_back(bits: int, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    seed = data.draw(st.integers(0, 99))
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert len(packed) == packed_bytes(codes.numel(), bits) == -(-codes.numel() * bits // 8)
    assert torch.equal(unpack(packed, bits, shape), codes)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_stream_is_the_codes_one_after_another_lowest_bit_first(bits: int) -> None:
    codes = [(7 * i + 3) % 2**bits for i in range(13)]
    stream = sum(code << (i * bits) for i, code in enumerate(codes))
    wanted = list(stream.to_bytes(packed_bytes(13, bits), "little"))
    assert pack(torch.tensor(codes, dtype=torch.uint8), bits).tolist() == wanted


@pytest.mark.parametrize("length", [0, 1, 3])
def test_another_length_is_refused(length: int) -> None:
    packed = torch.zeros(length, dtype=torch.uint8)
    with pytest.raises(InvalidArgumentError, match=r"^3 codes of 4 bits must take 2 bytes, but"):
        unpack(packed, bits=4, shape=(3,))


@pytest.mark.parametrize("bit", [4, 5, 6, 7])
def test_bits_after_the_last_code_must_be_0(bit: int) -> None:
    packed = pack(torch.tensor([1, 2, 3], dtype=torch.uint8), bits=4)
    packed[-1] |= 1 << bit
    with pytest.raises(InvalidArgumentError, match="bits after the last code must be 0"):
        unpack(packed, bits=4, shape=(3,))


def test_a_code_that_needs_more_bits_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="a code must be below 8, as it has 3 bits"):
        pack(torch.tensor([8], dtype=torch.uint8), bits=3)


@pytest.mark.parametrize("bits", [1, 9])
def test_other_bits_are_refused(bits: int) -> None:
    with pytest.raises(InvalidArgumentError, match="must be between 2 and 8"):
        pack(torch.tensor([0], dtype=torch.uint8), bits)
