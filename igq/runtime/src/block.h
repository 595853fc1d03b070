// A block: 16 rows of an activation, transposed, so that lane i of every vector belongs to row i.
//
// Ranges, normalisation, rotation and quantization then work on whole vectors, and four codes of a
// row lie in one 32-bit word, as the products read them (product.h).
#pragma once

#include <algorithm>
#include <utility>

#include "panel.h"
#include "vectors.h"

namespace igq {
namespace IGQ_TARGET {

#if defined(__AVX512F__)
template <int Half, size_t... Lane>
IGQ_INLINE void swap_halves(Floats& a, Floats& b, std::index_sequence<Lane...>) {
  Floats first = __builtin_shufflevector(a, b, (Lane & Half ? int(16 + (Lane ^ Half)) : int(Lane))...);
  b = __builtin_shufflevector(a, b, (Lane & Half ? int(16 + Lane) : int(Lane | Half))...);
  a = first;
}

// Transpose 16 rows of 16 lanes: swap each bit of the row's number with that of the lane's.
template <int Half>
IGQ_INLINE void transpose(Floats (&rows)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i)
    if (!(i & Half)) swap_halves<Half>(rows[i], rows[i | Half], std::make_index_sequence<kLanes>());
  if constexpr (Half > 1) transpose<Half / 2>(rows);
}
#endif

// Write `count` rows, `stride` apart, to `block` (channels, 16); lanes without a row become 0.
inline void load_block(const float* x, int64_t stride, int count, int64_t channels, float* block) {
  int64_t c = 0;
#if defined(__AVX512F__)
  for (; c + kLanes <= channels; c += kLanes) {
    Floats rows[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      rows[i] = i < count ? load<Floats>(x + i * stride + c) : Floats{};
    transpose<8>(rows);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(block + (c + i) * kLanes, rows[i]);
  }
#endif
  for (; c < channels; ++c)
    for (int i = 0; i < kLanes; ++i) block[c * kLanes + i] = i < count ? x[i * stride + c] : 0.0f;
}

// Return the sum over `count` channels of `of(channel)`, in four parts so that none waits.
template <class Of>
IGQ_INLINE Floats sum_over(int64_t count, const Of& of) {
  Floats parts[4] = {};
  int64_t c = 0;
  for (; c + 4 <= count; c += 4)
    for (int i = 0; i < 4; ++i) parts[i] += of(c + i);
  for (; c < count; ++c) parts[0] += of(c);
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

// Normalise each row: (x - mean) / sqrt(variance + epsilon) gain + shift.
inline void normalise(float* block, int64_t channels, const float* gain, const float* shift,
                      float epsilon) {
  auto value = [&](int64_t c) { return load<Floats>(block + c * kLanes); };
  Floats mean = sum_over(channels, value) / float(channels);
  Floats squares = sum_over(channels, [&](int64_t c) {
    Floats apart = value(c) - mean;
    return apart * apart;
  });
  Floats factor = all(1.0f) / square_root(squares / float(channels) + epsilon);
  for (int64_t c = 0; c < channels; ++c) {
    Floats x = (load<Floats>(block + c * kLanes) - mean) * factor;
    store(block + c * kLanes, x * gain[c] + shift[c]);
  }
}

// Sums and differences of `Count` channels, `apart` from each other, of values times `before(i)`,
// and their results times `factor`.
template <int Count, class Before>
IGQ_INLINE void butterflies(float* at, int64_t apart, const Before& before, float factor) {
  Floats x[Count];
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) x[i] = load<Floats>(at + i * apart * kLanes) * before(i * apart);
#pragma GCC unroll 3
  for (int half = 1; half < Count; half *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) {
      if (i & half) continue;
      Floats a = x[i], b = x[i | half];
      x[i] = a + b, x[i | half] = a - b;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) store(at + i * apart * kLanes, x[i] * factor);
}

// One round of `rotate`: channels `half` to `half * Count / 2` apart are joined.
template <int Count>
inline void join_channels(float* block, int64_t width, int64_t half, const float* signs) {
  float factor = half * Count == width ? 1.0f / __builtin_sqrtf(float(width)) : 1.0f;
  for (int64_t start = 0; start < width; start += half * Count) {
    for (int64_t c = start; c < start + half; ++c) {
      auto sign = [&](int64_t i) { return half == 1 ? signs[c + i] : 1.0f; };
      butterflies<Count>(block + c * kLanes, half, sign, factor);
    }
  }
}

// Rotate each row as igq.arithmetic.rotation does, operation by operation: signs, then sums and
// differences of channels 1, 2, 4 ... apart, then the factor.
inline void rotate(float* block, int64_t channels, int64_t width, const float* signs) {
  for (int64_t start = 0; start < channels; start += width) {
    float* at = block + start * kLanes;
    if (width == 1) store(at, load<Floats>(at) * signs[0]);
    int64_t half = 1;
    for (; half * 8 <= width; half *= 8) join_channels<8>(at, width, half, signs);
    for (; half < width; half *= 2) join_channels<2>(at, width, half, signs);
  }
}

// A quantizer for each lane (Eq. 1 and 2), and the form in which its codes are wanted.
struct Affine {
  Divisor scale;
  Floats zero_point, low, high;  // codes less their zero point lie between low and high
  Floats shift;                  // added to them
};

enum class Form { kUnsigned, kSigned };

// Signed codes are less their zero point where that fits in a byte, and less 128 with 8 bits.
template <Form Of>
IGQ_INLINE Affine affine(Floats scale, Floats zero_point, int bits) {
  Floats levels = all(float((1 << bits) - 1));
  Floats shift = zero_point;
  if constexpr (Of == Form::kSigned) shift = bits == 8 ? zero_point - 128.0f : Floats{};
  return {divisor(scale), zero_point, -zero_point, levels - zero_point, shift};
}

// Scale and zero point of a range that holds 0 (Eq. 1 and 2).
IGQ_INLINE void parameters(Floats low, Floats high, int bits, Floats& scale, Floats& zero_point) {
  Floats levels = all(float((1 << bits) - 1));
  scale = most((high - low) / levels, all(1e-12f));
  zero_point = within(rounded(-low / scale), Floats{}, levels);
}

// Four channels' codes as one word for each lane; `at(i)` is channel i, and those from `count` on 0.
template <class At>
IGQ_INLINE Ints word(const At& at, int64_t count, const Affine& by) {
  Ints made{};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if (i >= count) break;
    Floats code = within(quotient(at(i), by.scale), by.low, by.high) + kWhole + by.shift;
    Ints byte = bits<Ints>(code);
    made |= i == 3 ? byte << 24 : (byte & 255) << (8 * i);
  }
  return made;
}

// Write the codes of `count` channels, filled up with zeros to `padded`; return each lane's sum.
template <Form Of, class At>
IGQ_INLINE Floats encode(const At& at, int64_t count, int64_t padded, const Affine& by,
                         int32_t* words) {
  const Ints ones = all(0x01010101);
  Ints sum{};
  int64_t c = 0;
  auto put = [&](int64_t channels) {
    Ints made = word([&](int64_t i) { return at(c + i); }, channels, by);
    store(words + c / 4 * kLanes, made);
    sum = Of == Form::kSigned ? dot<true>(sum, ones, made) : dot<true>(sum, made, ones);
  };
  for (; c + 4 <= count; c += 4) put(4);
  if (c < count) put(count - c), c += 4;
  for (; c < padded; c += 4) store(words + c / 4 * kLanes, Ints{});
  return to_floats(sum);
}

// NaN in every lane that holds NaN or infinity, else 0.
IGQ_INLINE Floats poison(const float* block, int64_t channels) {
  return sum_over(channels, [&](int64_t c) { return load<Floats>(block + c * kLanes) * 0.0f; });
}

}  // namespace IGQ_TARGET
}  // namespace igq
