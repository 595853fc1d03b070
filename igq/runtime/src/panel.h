// A panel: everything that one operator needs of its layer, as bytes. igq/runtime/panels.py writes
// them; `linear_panel` and `attention_panel` check every number before anything is read by it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

// Code that is compiled for several instruction sets must be inlined: the linker keeps one copy.
#define IGQ_INLINE inline __attribute__((always_inline))
#define IGQ_LAMBDA __attribute__((always_inline))

namespace igq {

constexpr int32_t kVersion = 2;
constexpr int32_t kMagicLinear = 0x4c514749;     // "IGQL"
constexpr int32_t kMagicAttention = 0x41514749;  // "IGQA"
constexpr int64_t kMostInputs = 65536;           // sums of 255 * 128 fit in 32 bits
constexpr int64_t kMostGroups = 1024;
constexpr int64_t kMostRotated = 64;
constexpr int64_t kLineOutputs = 16;  // outputs, or channels, or queries, of a line
constexpr int64_t kAlignment = 64;    // bytes

// Where bounds come from: the slice itself, or fitted groups, one of which it picks by a rule.
enum class Rule : int32_t { kOwn = 0, kNearest = 1, kLeastError = 2 };

enum Flags : int32_t { kNorm = 1, kGelu = 2, kKeepsSum = 4 };

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Bounds of fitted groups with their scales and zero points; null where slices have their own.
struct Fitted {
  const float *lower, *upper, *scale, *zero_point;
};

struct LinearPanel {
  int64_t inputs, outputs;
  int32_t weight_bits, bits;  // of weights, and of activations
  Rule rule;
  int64_t groups;
  int64_t rotated;  // inputs that are rotated together; 0: none
  int32_t flags;
  float epsilon;  // of the normalisation
  const float *scale, *zero_point, *bias;  // outputs, filled up to whole lines
  const float *gain, *shift;               // inputs, where flags have kNorm
  const float* signs;                      // rotated
  Fitted fitted;
  const uint8_t* codes;

  IGQ_INLINE int64_t lines() const { return (outputs + kLineOutputs - 1) / kLineOutputs; }
  IGQ_INLINE bool picks() const { return rule != Rule::kOwn && groups > 1; }  // by channels
  // Whether codes are in half bytes, line by line; where channels pick they are in whole bytes,
  // channel by channel.
  IGQ_INLINE bool halves() const { return weight_bits <= 4 && !picks(); }
  IGQ_INLINE int64_t step() const { return halves() ? 8 : 4; }  // columns that groups fill up to
};

struct AttentionPanel {
  int64_t heads, width;
  int32_t q_bits, k_bits, v_bits, bits;  // `bits` are those of the softmax map
  Rule rule;
  int64_t groups;
  int32_t flags;
  float factor;  // of the scores
  Fitted fitted;
};

// Throw `Error` unless these bytes are such a panel, of exactly this size, with values in range.
LinearPanel linear_panel(const void* bytes, int64_t size);
AttentionPanel attention_panel(const void* bytes, int64_t size);

// Contiguous groups of an axis (igq/grouping/contiguous.py): its cells, and where groups start.
struct Contiguous {
  int64_t length, width, groups;  // of the axis; of each group but the last; how many there are

  IGQ_INLINE int64_t end(int64_t group) const {
    return group + 1 == groups ? length : (group + 1) * width;
  }
};
Contiguous contiguous(int64_t length, int64_t num_groups);

constexpr IGQ_INLINE int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace igq
