// Linear layers: quantize blocks of rows, multiply them with the weights' codes, finish.
#pragma once

#include "block.h"
#include "kernels.h"
#include "product.h"

namespace igq {
namespace IGQ_TARGET {

// How the columns of a product are laid out: groups of channels, each filled up to whole words.
struct Plan {
  int64_t groups, columns;
  int64_t* starts;          // (groups + 1) of channels
  int32_t* ends;            // (groups) of words
  const int32_t* channels;  // in the order of the columns, or null: as they are
  const uint8_t* lines;
  const int32_t* sums;  // (groups, lines * 16) sums of codes where offsets need them, or null

  const float* channel(const float* block, int64_t i) const {
    return block + (channels ? channels[i] : i) * kLanes;
  }
};

// A quantized block of rows.
struct Rows {
  int32_t* words;    // (columns / 4, 16)
  float* scales;     // (groups, 16)
  int32_t* offsets;  // (groups, 16), or null
  float* sums;       // (16): sums of the quantized values

  static Rows take(Arena& arena, int64_t columns, int64_t groups, bool offsets) {
    return {arena.take<int32_t>(columns / 4 * kLanes), arena.take<float>(groups * kLanes),
            offsets ? arena.take<int32_t>(groups * kLanes) : nullptr, arena.take<float>(kLanes)};
  }
};

inline void lay_out(Plan& plan, int64_t step) {
  int64_t column = 0;
  for (int64_t g = 0; g < plan.groups; ++g) {
    column += round_up(plan.starts[g + 1] - plan.starts[g], step);
    plan.ends[g] = int32_t(column / 4);
  }
  plan.columns = column;
}

inline Plan plan_of(const LinearPanel& p, Arena& arena) {
  Contiguous held = contiguous(p.inputs, p.rule == Rule::kOwn ? p.groups : 1);
  Plan plan{held.groups, 0, arena.take<int64_t>(held.groups + 1), arena.take<int32_t>(held.groups),
            nullptr, p.codes, nullptr};
  plan.starts[0] = 0;
  for (int64_t g = 0; g < held.groups; ++g) plan.starts[g + 1] = held.end(g);
  lay_out(plan, p.step());
  return plan;
}

// Sums of the codes of each output in each group, which 8-bit rows are offset by.
inline const int32_t* sums_of_codes(const LinearPanel& p, const Plan& plan, Arena& arena) {
  if (p.bits < 8) return nullptr;
  int64_t lines = p.lines(), words = plan.columns / 4, halves = p.halves();
  int32_t* sums = arena.take<int32_t>(plan.groups * lines * kLanes);
  const Ints ones = all(0x01010101);
  for (int64_t line = 0; line < lines; ++line) {
    const uint8_t* at = plan.lines + line * words * (halves ? 32 : 64);
    int64_t w = 0;
    for (int64_t g = 0; g < plan.groups; ++g) {
      Ints sum{};
      for (; w < plan.ends[g]; w += halves ? 2 : 1) {
        Ints codes = load<Ints>(at + (halves ? w / 2 : w) * 64);
        if (halves) sum = dot<true>(sum, (codes >> 4) & 0x0f0f0f0f, ones);
        sum = dot<true>(sum, halves ? codes & 0x0f0f0f0f : codes, ones);
      }
      store(sums + (g * lines + line) * kLanes, sum);
    }
  }
  return sums;
}

// Read 16 rows, normalised and rotated as the panel says.
inline Floats read_block(const LinearPanel& p, const float* x, int count, float* block) {
  load_block(x, p.inputs, count, p.inputs, block);
  Floats poisoned = poison(block, p.inputs);
  if (p.flags & kNorm) normalise(block, p.inputs, p.gain, p.shift, p.epsilon);
  if (p.rotated) rotate(block, p.inputs, p.rotated, p.signs);
  return poisoned;
}

inline void quantize_block(const LinearPanel& p, const Plan& plan, const float* block,
                           Floats poisoned, const Rows& rows) {
  Floats total = poisoned;
  for (int64_t g = 0; g < plan.groups; ++g) {
    int64_t start = plan.starts[g], count = plan.starts[g + 1] - start;
    int64_t word = g ? plan.ends[g - 1] : 0;
    Floats scale, zero_point;
    if (p.rule == Rule::kOwn) {
      Floats low{}, high{};
      for (int64_t i = 0; i < count; ++i) {
        Floats x = load<Floats>(block + (start + i) * kLanes);
        low = least(low, x), high = most(high, x);
      }
      parameters(low, high, p.bits, scale, zero_point);
    } else {
      scale = all(p.fitted.scale[g]), zero_point = all(p.fitted.zero_point[g]);
    }
    Affine by = affine<Form::kSigned>(scale, zero_point, p.bits);
    auto at = [&](int64_t i) { return load<Floats>(plan.channel(block, start + i)); };
    Floats sum = encode<Form::kSigned>(at, count, (plan.ends[g] - word) * 4, by,
                                       rows.words + word * kLanes);
    store(rows.scales + g * kLanes, scale);
    if (rows.offsets) store(rows.offsets + g * kLanes, __builtin_convertvector(-by.shift, Ints));
    total = fused(sum - by.shift * float(count), scale, total);
  }
  store(rows.sums, total);
}

// x times half of 1 + erf(x / sqrt 2), which is a quotient of polynomials (benchmarks/fit_gelu.py).
IGQ_INLINE Floats gelu(Floats x) {
  Floats t = within(x, all(-5.3f), all(5.3f));
  Floats u = t * t;
  Floats p = all(2.3586377295714556e-10f);
  for (float c : {-4.56757547340203e-08f, 6.577591193490662e-06f, 0.0003391043865121901f,
                  0.008996311575174332f, 0.07143224030733109f, 0.7978841066360474f})
    p = fused(p, u, all(c));
  Floats q = all(6.258097710087895e-05f);
  for (float c : {0.0018218625336885452f, 0.02897912822663784f, 0.2561904788017273f, 1.0f})
    q = fused(q, u, all(c));
  Floats half = x * 0.5f;
  return fused(half, near_quotient(t * p, q), half);
}

// Writes the values of 16 outputs of a row: scale (sum - zero point row sum) + bias, and what the
// panel adds to it.
struct Finish {
  const LinearPanel& p;
  int64_t line;
  const float* sums;      // of the rows of the block
  const float* residual;  // of the first row of the block, or null
  float* y;

  IGQ_INLINE void operator()(int first, int count, int64_t, Floats (&product)[kTileRows]) const {
    int64_t output = line * kLanes, left = p.outputs - output;
    Floats scale = load<Floats>(p.scale + output), bias = load<Floats>(p.bias + output);
    Floats zero_point = -load<Floats>(p.zero_point + output);
    const float* added = residual ? residual + first * p.outputs + output : nullptr;
    float* to = y + first * p.outputs + output;
    bool with_gelu = p.flags & kGelu;
    each_row(count, [&](int r) IGQ_LAMBDA {
      Floats value = fused(fused(zero_point, all(sums[first + r]), product[r]), scale, bias);
      if (with_gelu) value = gelu(value);
      int64_t at = r * p.outputs;
      if (left >= kLanes) {
        if (added) value += load<Floats>(added + at);
        store(to + at, value);
      } else {
        for (int64_t i = 0; i < left; ++i) to[at + i] = added ? value[i] + added[at + i] : value[i];
      }
    });
  }
};

template <class Kind>
inline void multiply(const LinearPanel& p, const Plan& plan, const Rows* rows, int64_t blocks,
                     int64_t count, const float* residual, float* y) {
  int64_t stride = plan.columns * kLineOutputs / Kind::kWords;
  for (int64_t line = 0; line < p.lines(); ++line) {
    for (int64_t b = 0; b < blocks; ++b) {
      Product of{plan.lines + line * stride, stride, rows[b].words, plan.ends, plan.groups,
                 rows[b].scales, rows[b].offsets, plan.sums + line * kLanes, p.lines() * kLanes};
      int64_t at = b * kLanes * p.outputs;
      Finish finish{p, line, rows[b].sums, residual ? residual + at : nullptr, y + at};
      product<Kind>(of, int(std::min<int64_t>(kLanes, count - b * kLanes)), 1, finish);
    }
  }
}

constexpr int64_t kMostBlocks = 3;  // of a task: few enough to share out, and to stay in cache

// Quantize and multiply `count` rows whose blocks `read` yields: read(b, block) -> poison.
template <class Read>
inline void multiply_rows(const LinearPanel& p, const Plan& plan, int64_t count, const Read& read,
                          const float* residual, float* y) {
  Arena arena;
  int64_t blocks = (count + kLanes - 1) / kLanes;
  Rows rows[kMostBlocks];
  float* block = arena.take<float>(p.inputs * kLanes);
  for (int64_t b = 0; b < blocks; ++b) {
    rows[b] = Rows::take(arena, plan.columns, plan.groups, plan.sums);
    const float* held = block;
    Floats poisoned = read(b, block, held);
    quantize_block(p, plan, held, poisoned, rows[b]);
  }
  (p.halves() ? multiply<Narrow> : multiply<Wide>)(p, plan, rows, blocks, count, residual, y);
}

// Rows of each task: whole blocks, and work for every thread.
inline int64_t rows_per_task(int64_t rows, int64_t threads) {
  int64_t blocks = (rows + kLanes - 1) / kLanes;
  return std::min(kMostBlocks, (blocks + threads - 1) / threads) * kLanes;
}

inline void linear_in_place(const LinearPanel& p, const LinearCall& call,
                            const Parallel& parallel) {
  Arena arena;
  Plan plan = plan_of(p, arena);
  plan.sums = sums_of_codes(p, plan, arena);
  int64_t rows = call.images * call.tokens, each = rows_per_task(rows, parallel.threads);
  parallel((rows + each - 1) / each, [&](int64_t task) {
    int64_t first = task * each, count = std::min(each, rows - first);
    auto read = [&](int64_t b, float* block, const float*&) {
      int64_t row = first + b * kLanes;
      int held = int(std::min<int64_t>(kLanes, first + count - row));
      return read_block(p, call.x + row * p.inputs, held, block);
    };
    multiply_rows(p, plan, count, read, call.residual ? call.residual + first * p.outputs : nullptr,
                  call.y + first * p.outputs);
  });
}

}  // namespace IGQ_TARGET
}  // namespace igq
