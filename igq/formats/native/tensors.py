"""The tensors of an artifact: their names, the types and shapes they must have, and their values.

`weights.LAYER.codes` are packed to their bits, `weights.LAYER.scale` and `.zero_point` are of each
output channel, `activations.LAYER.lower` and `.upper` of each fitted group, and `parameters.NAME`
is everything else that is learned, as the model has it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from igq.arithmetic.affine import QuantizedTensor
from igq.errors import InvalidArgumentError
from igq.formats.integrity import DamagedError, check_plain
from igq.formats.native.manifest import MOST_GROUPS, TENSORS, Activation, Described
from igq.formats.packing import pack, packed_bytes, unpack
from igq.grouping import FittedGrouping, GroupQuantizer, Quantizer, SliceQuantizer
from igq.quantized import quantized_weights, quantizers

LARGEST = 1e15
"""The largest size of a bound or scale: its squares and their sums are finite."""
MOST_HEADER_BYTES = 16 << 20
"""The most bytes of the part of the file that names the tensors."""
_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Spec:
    """The types and the shape that a tensor may have; None: any length up to `MOST_GROUPS`."""

    types: tuple[str, ...]
    shape: tuple[int | None, ...]

    def allows(self, kind: str, shape: list[int]) -> bool:
        """Return whether a tensor of this type and shape is one."""
        if kind not in self.types or len(shape) != len(self.shape):
            return False
        pairs = zip(shape, self.shape, strict=True)
        return all(0 < n <= MOST_GROUPS if most is None else n == most for n, most in pairs)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a quantized model by their names in the file."""
    tensors: dict[str, Tensor] = {}
    for name, q in quantizers(model).items():
        if isinstance(q, GroupQuantizer):
            tensors |= {f"activations.{name}.lower": q.lower, f"activations.{name}.upper": q.upper}
    for name, w in quantized_weights(model).items():
        tensors |= {
            f"weights.{name}.codes": pack(w.codes, w.bits),
            f"weights.{name}.scale": w.scale.float(),
            f"weights.{name}.zero_point": w.zero_point.float(),
        }
    tensors |= {f"parameters.{name}": p.detach() for name, p in model.named_parameters()}
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def read_tensors(folder: Path, specs: Mapping[str, Spec]) -> dict[str, Tensor]:
    """Return the tensors of a file, whose names, types and shapes are looked at before.

    Raises:
        DamagedError: the file is damaged, or a tensor is missing, left over, or of another type or
            shape.
    """
    check_plain(folder, TENSORS)
    path = folder / TENSORS
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MOST_HEADER_BYTES:
            raise DamagedError(TENSORS, f"its header must have at most {MOST_HEADER_BYTES} bytes")
    try:
        with safe_open(path, framework="pt") as opened:
            _check_specs(opened, specs)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedError(TENSORS, f"it must hold tensors, but: {error}") from error


def specs_of(found: Described, skeleton: nn.Module, packed: bool) -> dict[str, Spec]:
    """Return what the tensors of a described model must be; before schema 5 a code took a byte."""
    specs: dict[str, Spec] = {}
    for name, activation in found.activations.items():
        if activation.fitted:
            bound = Spec(_FLOATS, (activation.num_groups,))
            specs |= {f"activations.{name}.lower": bound, f"activations.{name}.upper": bound}
    for name, bits in found.weights.items():
        weight = skeleton.get_parameter(f"{name}.weight")
        codes = (packed_bytes(weight.numel(), bits),) if packed else tuple(weight.shape)
        specs |= {
            f"weights.{name}.codes": Spec(("U8",), codes),
            f"weights.{name}.scale": Spec(("F32",) if packed else _FLOATS, (len(weight),)),
            f"weights.{name}.zero_point": Spec(("F32",) if packed else _FLOATS, (len(weight),)),
        }
    quantized = {f"{name}.weight" for name in found.weights}
    left = ((n, p) for n, p in skeleton.named_parameters() if n not in quantized)
    return specs | {f"parameters.{name}": Spec(_FLOATS, tuple(p.shape)) for name, p in left}


def parameters_from(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters that are not quantized.

    Raises:
        DamagedError: one holds NaN or infinity, or they are of several types.
    """
    prefix = "parameters."
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    for name, tensor in found.items():
        _check_finite(f"{prefix}{name}", tensor)
    if len({tensor.dtype for tensor in found.values()}) > 1:
        raise DamagedError(TENSORS, "all parameters must have one type, but have several")
    return found


def weight_from(
    tensors: Mapping[str, Tensor], name: str, bits: int, shape: torch.Size, packed: bool
) -> QuantizedTensor:
    """Return the quantized weight of a layer.

    Raises:
        DamagedError: a code, scale or zero point is one that it cannot be.
    """
    place = f"weights.{name}"
    stored, scale = tensors[f"{place}.codes"], tensors[f"{place}.scale"]
    zero_point = tensors[f"{place}.zero_point"]
    try:
        codes = unpack(stored, bits, shape) if packed else stored
    except InvalidArgumentError as error:
        raise DamagedError(TENSORS, f"{place}.codes: {error}") from error
    _check_finite(f"{place}.scale", scale)
    _require(f"{place}.scale", bool((scale > 0).all()), "be above 0")
    _require(f"{place}.codes", int(codes.max()) < 2**bits, f"be below {2**bits}")
    inside = (zero_point >= 0) & (zero_point < 2**bits) & (zero_point == zero_point.round())
    _require(f"{place}.zero_point", bool(inside.all()), f"be codes below {2**bits}")
    return QuantizedTensor(codes, scale, zero_point, bits)


def quantizer_from(tensors: Mapping[str, Tensor], name: str, noted: Activation) -> Quantizer:
    """Return the quantizer of an activation.

    Raises:
        DamagedError: its bounds are not finite, not in order, or as many above as below.
    """
    if not noted.fitted:
        return SliceQuantizer(noted.bits, noted.grouping, noted.num_groups or 1)
    assert isinstance(noted.grouping, FittedGrouping)  # as the rules say
    place = f"activations.{name}"
    lower, upper = tensors[f"{place}.lower"], tensors[f"{place}.upper"]
    _require(place, (lower.shape, lower.dtype) == (upper.shape, upper.dtype), "be pairs of bounds")
    _check_finite(f"{place}.lower", lower)
    _check_finite(f"{place}.upper", upper)
    _require(place, bool((lower <= upper).all()), "have lower bounds below upper ones")
    return GroupQuantizer(lower, upper, noted.bits, noted.grouping)


def _check_specs(opened: safe_open, specs: Mapping[str, Spec]) -> None:
    names = set(opened.keys())  # type: ignore[no-untyped-call]
    if odd := sorted(names ^ specs.keys()):
        has = "lack" if odd[0] in specs else "have"
        raise DamagedError(TENSORS, f"its tensors must be the model's, but {has} {odd[0]!r:.100}")
    for name, spec in specs.items():
        part = opened.get_slice(name)  # type: ignore[no-untyped-call]
        kind, shape = part.get_dtype(), part.get_shape()
        if not spec.allows(kind, shape):
            wanted = ["any" if n is None else n for n in spec.shape]
            raise DamagedError(
                TENSORS,
                f"{name} must be {' or '.join(spec.types)} of shape {wanted}, but is {kind} of "
                f"shape {shape}",
            )


def _check_finite(place: str, tensor: Tensor) -> None:
    for part in _parts(tensor):
        _require(place, bool((part.abs() <= LARGEST).all()), f"be finite, and within {LARGEST:g}")


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor in parts, so that looking at it takes little memory."""
    yield from tensor.flatten().split(1 << 20)


def _require(place: str, holds: bool, rule: str) -> None:
    if not holds:
        raise DamagedError(TENSORS, f"{place} must {rule}, but does not")
