// Products of quantized rows with quantized lines, group by group.
//
// A line is 16 outputs: for each 4 columns 64 bytes, 4 for each output in turn, or for each 8
// columns 64 bytes whose low halves are the first 4 columns and high halves the next. Rows are
// blocks of 16, one word of 4 columns for each row in turn. One of the two is unsigned.
#pragma once

#include "panel.h"
#include "vectors.h"

namespace igq {
namespace IGQ_TARGET {

constexpr int kTileRows = 4;

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

// Sums over groups of scale times product, of Rows rows from `first` and Lines lines from `line`.
template <class Kind, int Rows, int Lines>
IGQ_INLINE void tile(const Product& p, int first, int64_t line, Floats (&result)[Rows][Lines]) {
#pragma GCC unroll 12
  for (int i = 0; i < Rows * Lines; ++i) result[i / Lines][i % Lines] = Floats{};
  const uint8_t* lines = p.lines + line * p.stride;
  const int32_t* rows = p.rows + first;
  int64_t at = 0;
  for (int64_t g = 0; g < p.groups; ++g) {
    Ints sums[Rows][Lines];
#pragma GCC unroll 12
    for (int i = 0; i < Rows * Lines; ++i) sums[i / Lines][i % Lines] = Ints{};
    if (p.offsets) {
#pragma GCC unroll 12
      for (int i = 0; i < Rows * Lines; ++i) {
        int r = i / Lines, l = i % Lines;
        Ints of_line = load<Ints>(p.sums + g * p.sums_stride + (line + l) * kLanes);
        sums[r][l] = of_line * p.offsets[g * kLanes + first + r];
      }
    }
    for (; at < p.ends[g]; at += Kind::kWords) {
      Ints held[Lines];
#pragma GCC unroll 3
      for (int l = 0; l < Lines; ++l)
        held[l] = load<Ints>(lines + l * p.stride + at / Kind::kWords * 64);
#pragma GCC unroll 2
      for (int w = 0; w < Kind::kWords; ++w) {
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
          Ints row = all(rows[(at + w) * kLanes + r]);
#pragma GCC unroll 3
          for (int l = 0; l < Lines; ++l) {
            Ints of_line = held[l];
            if constexpr (Kind::kWords == 2)
              of_line = (w ? bits<Ints>(bits<ShortInts>(of_line) >> 4) : of_line) & 0x0f0f0f0f;
            sums[r][l] = add_product<Kind>(sums[r][l], of_line, row);
          }
        }
      }
    }
#pragma GCC unroll 12
    for (int i = 0; i < Rows * Lines; ++i) {
      int r = i / Lines, l = i % Lines;
      Floats scale = all(p.scales[g * kLanes + first + r]);
      result[r][l] = fused(to_floats(sums[r][l]), scale, result[r][l]);
    }
  }
}

template <class Kind, int Rows, int Lines, class Use>
IGQ_INLINE void one_tile(const Product& p, int first, int64_t line, const Use& use) {
  Floats result[Rows][Lines];
  tile<Kind, Rows, Lines>(p, first, line, result);
#pragma GCC unroll 12
  for (int i = 0; i < Rows * Lines; ++i)
    use(first + i / Lines, line + i % Lines, result[i / Lines][i % Lines]);
}

template <class Kind, int Lines, class Use>
inline void some_lines(const Product& p, int count, int64_t line, const Use& use) {
  int first = 0;
  for (; first + kTileRows <= count; first += kTileRows)
    one_tile<Kind, kTileRows, Lines>(p, first, line, use);
  for (; first < count; ++first) one_tile<Kind, 1, Lines>(p, first, line, use);
}

// Call `use(row, line, sums)` for the first `count` rows of the block and Lines lines from `line`.
template <class Kind, class Use>
IGQ_INLINE void product(const Product& p, int count, int64_t line, int64_t lines, const Use& use) {
  if (lines == 3) some_lines<Kind, 3>(p, count, line, use);
  if (lines == 2) some_lines<Kind, 2>(p, count, line, use);
  if (lines == 1) some_lines<Kind, 1>(p, count, line, use);
}

constexpr int64_t kTileLines = 3;

}  // namespace IGQ_TARGET
}  // namespace igq
