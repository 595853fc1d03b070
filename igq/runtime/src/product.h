// Products of quantized rows with quantized lines, group by group.
//
// A line is 16 outputs: for each 4 columns 64 bytes, 4 for each output in turn, or for each 8
// columns 64 bytes whose low halves are the first 4 columns and high halves the next. Rows are
// blocks of 16, one word of 4 columns for each row in turn. One of the two is unsigned.
#pragma once

#include <algorithm>

#include "panel.h"
#include "vectors.h"

namespace igq {
namespace IGQ_TARGET {

constexpr int kTileRows = 8;

// The operands of a product of the rows of one block with some lines.
struct Product {
  const uint8_t* lines;    // (lines, stride)
  int64_t stride;          // bytes of a line
  const int32_t* rows;     // (columns / 4, 16)
  const int32_t* ends;     // of each group, in words
  int64_t groups;
  const float* scales;     // (groups, 16): of each group of each row
  const int32_t* offsets;  // (groups, 16), or null: times `sums` of the group is added
  const int32_t* sums;     // (groups or 1, lines * 16)
  int64_t sums_stride;     // between groups; 0 where all have the same
};

struct Narrow {  // 4 bits: two words of columns in each 64 bytes
  static constexpr int kWords = 2;
  static constexpr bool kWide = false, kRowsUnsigned = false;
};
struct Wide {  // 8 bits
  static constexpr int kWords = 1;
  static constexpr bool kWide = true, kRowsUnsigned = false;
};
struct WideRows {  // 8 bits, and the rows are the unsigned ones
  static constexpr int kWords = 1;
  static constexpr bool kWide = true, kRowsUnsigned = true;
};

template <class Kind>
IGQ_INLINE Ints add_product(Ints sum, Ints line, Ints row) {
  return Kind::kRowsUnsigned ? dot<Kind::kWide>(sum, row, line) : dot<Kind::kWide>(sum, line, row);
}

// Sums over groups of scale times product, of kTileRows rows from `first` and one line.
//
// One line is as quick as three: what its codes cost to unpack is shared by eight rows, each word
// of which is an operand in memory.
template <class Kind>
IGQ_INLINE void tile(const Product& p, int first, int64_t line, Floats (&result)[kTileRows]) {
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) result[r] = Floats{};
  const uint8_t* codes = p.lines + line * p.stride;
  const int32_t* rows = p.rows + first;
  const float* scales = p.scales + first;
  for (int64_t g = 0; g < p.groups; ++g, scales += kLanes) {
    Ints sums[kTileRows] = {};
    if (p.offsets) {
      Ints of_line = load<Ints>(p.sums + g * p.sums_stride + line * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kTileRows; ++r) sums[r] = of_line * p.offsets[g * kLanes + first + r];
    }
    const int32_t* end = p.rows + first + int64_t(p.ends[g]) * kLanes;
    for (; rows < end; codes += 64) {
      Ints held = load<Ints>(codes);
#pragma GCC unroll 2
      for (int w = 0; w < Kind::kWords; ++w, rows += kLanes) {
        Ints part = held;
        if constexpr (Kind::kWords == 2)
          part = (w ? bits<Ints>(bits<ShortInts>(held) >> 4) : held) & 0x0f0f0f0f;
#pragma GCC unroll 8
        for (int r = 0; r < kTileRows; ++r)
          sums[r] = add_product<Kind>(sums[r], part, all(rows[r]));
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r)
      result[r] = fused(to_floats(sums[r]), all(scales[r]), result[r]);
  }
}

// Call `use(first, count, line, sums)` for each tile: `count` of its rows are of the block.
template <class Kind, class Use>
inline void product(const Product& p, int count, int64_t lines, const Use& use) {
  for (int64_t line = 0; line < lines; ++line) {
    for (int first = 0; first < count; first += kTileRows) {  // rows beyond `count` are zeros
      Floats result[kTileRows];
      tile<Kind>(p, first, line, result);
      use(first, std::min(kTileRows, count - first), line, result);
    }
  }
}

// Call `use(row)` for each row of a tile; whole tiles are unrolled.
template <class Use>
IGQ_INLINE void each_row(int count, const Use& use) {
  if (count == kTileRows) {
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) use(r);
  } else {
    for (int r = 0; r < count; ++r) use(r);
  }
}

}  // namespace IGQ_TARGET
}  // namespace igq
