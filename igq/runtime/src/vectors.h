// Vectors of 16 lanes: arithmetic by the compiler, and the few operations that it has no word for.
//
// Everything here is compiled once for each instruction set (see kernels.h); where a processor's
// vectors are shorter the compiler cuts these into parts.
#pragma once

#include <cstdint>
#include <cstring>

#include "panel.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#include <arm_neon.h>
#endif

namespace igq {
namespace IGQ_TARGET {

constexpr int kLanes = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t ShortInts __attribute__((vector_size(64)));

template <class Vector, class Element>
IGQ_INLINE Vector load(const Element* from) {
  Vector made;
  std::memcpy(&made, from, sizeof made);
  return made;
}

template <class Vector, class Element>
IGQ_INLINE void store(Element* to, const Vector& vector) {
  std::memcpy(to, &vector, sizeof vector);
}

template <class To, class From>
IGQ_INLINE To bits(const From& vector) {
  static_assert(sizeof(To) == sizeof(From));
  To made;
  std::memcpy(&made, &vector, sizeof made);
  return made;
}

IGQ_INLINE Floats all(float v) { return Floats{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}; }
IGQ_INLINE Ints all(int32_t v) { return Ints{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}; }
IGQ_INLINE Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

#if defined(__AVX512F__)
IGQ_INLINE Floats least(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
IGQ_INLINE Floats most(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
#else
IGQ_INLINE Floats least(Floats a, Floats b) { return a < b ? a : b; }
IGQ_INLINE Floats most(Floats a, Floats b) { return a > b ? a : b; }
#endif
IGQ_INLINE Floats within(Floats x, Floats low, Floats high) { return least(most(x, low), high); }

#if defined(__AVX512F__)
IGQ_INLINE Floats fused(Floats a, Floats b, Floats c) {
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#elif defined(__FMA__)
struct Halves {
  __m256i low, high;
};
IGQ_INLINE Floats fused(Floats a, Floats b, Floats c) {
  Halves x = bits<Halves>(a), y = bits<Halves>(b), z = bits<Halves>(c);
  auto part = [](__m256i p, __m256i q, __m256i r) {
    return (__m256i)_mm256_fmadd_ps((__m256)p, (__m256)q, (__m256)r);
  };
  return bits<Floats>(Halves{part(x.low, y.low, z.low), part(x.high, y.high, z.high)});
}
#else
IGQ_INLINE Floats fused(Floats a, Floats b, Floats c) { return a * b + c; }
#endif

// A divisor, with its reciprocal where that makes quotients quick. Quotients are rounded correctly
// either way: q + r (x - s q) is the nearest float if r is that of 1 / s (Markstein, 1990).
struct Divisor {
  Floats value;
#if defined(__FMA__)
  Floats reciprocal;
#endif
};

IGQ_INLINE Divisor divisor(Floats value) {
#if defined(__FMA__)
  return {value, all(1.0f) / value};
#else
  return {value};
#endif
}

IGQ_INLINE Floats quotient(Floats x, const Divisor& by) {
#if defined(__FMA__)
  Floats near = x * by.reciprocal;
  return fused(fused(-by.value, near, x), by.reciprocal, near);
#else
  return x / by.value;
#endif
}

// A quotient within 2 units in the last place, for a divisor that is neither tiny nor huge.
IGQ_INLINE Floats near_quotient(Floats x, Floats by) {
#if defined(__AVX512F__)
  Floats r = (Floats)_mm512_rcp14_ps((__m512)by);
  r = fused(fused(-by, r, all(1.0f)), r, r);
  return x * r;
#else
  return x / by;
#endif
}

// Adding this to a float between -2^22 and 2^22 rounds it to a whole number, half to even, which
// the low bits of the sum then hold in two's complement.
constexpr float kWhole = 12582912.0f;

IGQ_INLINE Floats rounded(Floats x) { return (x + kWhole) - kWhole; }

// Add to each lane of `sum` the four products of its unsigned and its signed bytes. `Wide` is
// for unsigned bytes above 127: without it, AVX2's sums of two products could saturate.
template <bool Wide>
IGQ_INLINE Ints dot(Ints sum, Ints unsigned_bytes, Ints signed_bytes) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)unsigned_bytes, (__m512i)signed_bytes);
#elif defined(__AVX2__)
  Halves a = bits<Halves>(sum), u = bits<Halves>(unsigned_bytes), s = bits<Halves>(signed_bytes);
  auto part = [](__m256i acc, __m256i x, __m256i y) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(acc, x, y);
#else
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (!Wide) {
      return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
    } else {
      __m256i low = _mm256_and_si256(x, _mm256_set1_epi8(127));
      __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 7), _mm256_set1_epi8(1));
      __m256i small = _mm256_madd_epi16(_mm256_maddubs_epi16(low, y), ones);
      __m256i large = _mm256_madd_epi16(_mm256_maddubs_epi16(high, y), ones);
      return _mm256_add_epi32(acc, _mm256_add_epi32(small, _mm256_slli_epi32(large, 7)));
    }
#endif
  };
  return bits<Ints>(Halves{part(a.low, u.low, s.low), part(a.high, u.high, s.high)});
#elif defined(__ARM_FEATURE_MATMUL_INT8)
  struct Quarters {
    int8x16_t part[4];
  };
  Quarters a = bits<Quarters>(sum), u = bits<Quarters>(unsigned_bytes);
  Quarters s = bits<Quarters>(signed_bytes);
  for (int i = 0; i < 4; ++i)
    a.part[i] = vreinterpretq_s8_s32(vusdotq_s32(
        vreinterpretq_s32_s8(a.part[i]), vreinterpretq_u8_s8(u.part[i]), s.part[i]));
  return bits<Ints>(a);
#else
  const uint8_t* u = reinterpret_cast<const uint8_t*>(&unsigned_bytes);
  const int8_t* s = reinterpret_cast<const int8_t*>(&signed_bytes);
  int32_t sums[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    int32_t four = 0;
    for (int j = 0; j < 4; ++j) four += int32_t(u[4 * i + j]) * int32_t(s[4 * i + j]);
    sums[i] = four;
  }
  return sum + load<Ints>(sums);
#endif
}

// e^x for x between -87 and 88, within 2 units in the last place: 2^n e^r, |r| <= ln 2 / 2.
IGQ_INLINE Floats exponential(Floats x) {
  x = within(x, all(-87.0f), all(88.0f));
  Floats n = rounded(x * 1.44269504f);
  Floats r = fused(n, all(-0.693359375f), x);
  r = fused(n, all(2.12194440e-4f), r);
  Floats p = all(1.0f / 5040);  // Taylor's, whose next term is below 6e-8 there
  for (float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    p = fused(p, r, all(coefficient));
  return bits<Floats>(bits<Ints>(p) + (__builtin_convertvector(n, Ints) << 23));
}

IGQ_INLINE Floats square_root(Floats x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_sqrt_ps((__m512)x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

}  // namespace IGQ_TARGET
}  // namespace igq
