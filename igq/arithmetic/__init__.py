"""Pure functions of tensors: affine quantization, weights, rounding, rotation."""
