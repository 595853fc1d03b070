// Linear layers whose channels pick fitted groups, in each image, by their ranges (Eq. 4 and 5).
#pragma once

#include "linear.h"

namespace igq {
namespace IGQ_TARGET {

// Expected error of clipping what lies `beyond` a bound (igq.grouping.base.expected_error).
IGQ_INLINE float clipped(float beyond, float width) {
  float share = beyond / width;
  float part = share * share / 3.0f;
  return beyond * beyond * (part < 1.0f ? part : 1.0f);
}

// How badly bounds suit a range: operation by operation as igq.grouping.base has it.
inline float misfit(Rule rule, float least, float most, const Fitted& fitted, int64_t group) {
  float lower = fitted.lower[group], upper = fitted.upper[group], scale = fitted.scale[group];
  if (rule == Rule::kNearest)
    return (least - lower) * (least - lower) + (most - upper) * (most - upper);
  float width = most - least > 1e-12f ? most - least : 1e-12f;
  float below = (lower < 0 ? lower : 0.0f) - least, above = most - (upper > 0 ? upper : 0.0f);
  return clipped(below > 0 ? below : 0.0f, width) + clipped(above > 0 ? above : 0.0f, width) +
         scale * scale / 12.0f;
}

inline int64_t pick(Rule rule, float least, float most, const Fitted& fitted, int64_t groups) {
  int64_t best = 0;
  float error = misfit(rule, least, most, fitted, 0);
  for (int64_t g = 1; g < groups; ++g) {
    float other = misfit(rule, least, most, fitted, g);
    if (other < error) error = other, best = g;
  }
  return best;
}

// Widen the ranges of channels (channels, 2, 16) by the first `count` lanes of a block.
inline void widen(const float* block, int64_t channels, int count, float* ranges) {
  for (int64_t c = 0; c < channels; ++c) {
    Floats x = load<Floats>(block + c * kLanes);
    for (int i = count; i < kLanes; ++i) x[i] = x[0];
    float* range = ranges + 2 * c * kLanes;
    store(range, least(load<Floats>(range), x));
    store(range + kLanes, most(load<Floats>(range + kLanes), x));
  }
}

// Let each channel pick its group; return the channels in the order of groups, and set the starts.
inline const int32_t* order_of(const LinearPanel& p, const float* ranges, Plan& plan, Arena& arena) {
  int32_t* groups = arena.take<int32_t>(p.inputs);
  int32_t* channels = arena.take<int32_t>(p.inputs);
  for (int64_t c = 0; c < p.inputs; ++c) {
    const float* range = ranges + 2 * c * kLanes;
    float low = range[0], high = range[kLanes];
    for (int i = 1; i < kLanes; ++i) {
      low = range[i] < low ? range[i] : low;
      high = range[kLanes + i] > high ? range[kLanes + i] : high;
    }
    groups[c] = int32_t(pick(p.rule, low, high, p.fitted, p.groups));
  }
  int64_t placed = 0;
  for (int64_t g = 0; g < p.groups; ++g) {
    plan.starts[g] = placed;
    for (int64_t c = 0; c < p.inputs; ++c)
      if (groups[c] == g) channels[placed++] = int32_t(c);
  }
  plan.starts[p.groups] = placed;
  return channels;
}

// Write a line in the order of the columns from codes that are stored channel by channel.
inline void order_line(const LinearPanel& p, const Plan& plan, int64_t line, uint8_t* to) {
  typedef uint8_t Codes __attribute__((vector_size(16)));
  int64_t stride = p.lines() * kLanes, word = 0;
  for (int64_t g = 0; g < plan.groups; ++g) {
    for (int64_t i = plan.starts[g]; i < plan.starts[g + 1]; i += 4, ++word) {
      Ints made{};
      for (int64_t j = 0; j < 4 && i + j < plan.starts[g + 1]; ++j) {
        const uint8_t* from = p.codes + plan.channels[i + j] * stride + line * kLanes;
        made |= __builtin_convertvector(load<Codes>(from), Ints) << int(8 * j);
      }
      store(to + word * 64, made);
    }
  }
}

// The blocks of an image, normalised and rotated.
struct Blocks {
  int64_t tokens, size;  // `size` numbers in each block
  float* values;
  float* poisoned;  // (blocks, 16)

  IGQ_INLINE int64_t count() const { return (tokens + kLanes - 1) / kLanes; }
  IGQ_INLINE int rows(int64_t b) const {
    return int(std::min<int64_t>(kLanes, tokens - b * kLanes));
  }
};

inline Blocks read_blocks(const LinearPanel& p, const float* x, int64_t tokens, Arena& arena,
                          const Parallel& parallel) {
  Blocks made{tokens, p.inputs * kLanes, nullptr, nullptr};
  made.values = arena.take<float>(made.count() * made.size);
  made.poisoned = arena.take<float>(made.count() * kLanes);
  parallel(made.count(), [&](int64_t b) {
    const float* rows = x + b * kLanes * p.inputs;
    Floats poisoned = read_block(p, rows, made.rows(b), made.values + b * made.size);
    store(made.poisoned + b * kLanes, poisoned);
  });
  return made;
}

// The columns of an image whose channels have picked their groups.
inline Plan plan_of_picks(const LinearPanel& p, const Blocks& blocks, Arena& arena) {
  Plan plan{p.groups, 0, arena.take<int64_t>(p.groups + 1), arena.take<int32_t>(p.groups),
            nullptr, nullptr, nullptr};
  float* ranges = arena.take<float>(2 * blocks.size);
  for (int64_t c = 0; c < p.inputs; ++c) {
    store(ranges + 2 * c * kLanes, all(__builtin_inff()));
    store(ranges + (2 * c + 1) * kLanes, all(-__builtin_inff()));
  }
  for (int64_t b = 0; b < blocks.count(); ++b)
    widen(blocks.values + b * blocks.size, p.inputs, blocks.rows(b), ranges);
  plan.channels = order_of(p, ranges, plan, arena);
  lay_out(plan, p.step());
  return plan;
}

inline void order_lines(const LinearPanel& p, Plan& plan, Arena& arena, const Parallel& parallel) {
  uint8_t* ordered = arena.take<uint8_t>(p.lines() * plan.columns * kLanes);
  parallel(p.lines(), [&](int64_t line) {
    order_line(p, plan, line, ordered + line * plan.columns * kLanes);
  });
  plan.lines = ordered;
  plan.sums = sums_of_codes(p, plan, arena);
}

inline void linear_picked(const LinearPanel& p, const LinearCall& call, const Parallel& parallel) {
  int64_t each = rows_per_task(call.tokens, parallel.threads);
  for (int64_t image = 0; image < call.images; ++image) {
    Arena arena;
    const float* x = call.x + image * call.tokens * p.inputs;
    Blocks blocks = read_blocks(p, x, call.tokens, arena, parallel);
    Plan plan = plan_of_picks(p, blocks, arena);
    order_lines(p, plan, arena, parallel);
    parallel((call.tokens + each - 1) / each, [&](int64_t task) {
      int64_t first = task * each, count = std::min(each, call.tokens - first);
      auto read = [&](int64_t b, float*, const float*& block) {
        block = blocks.values + (first / kLanes + b) * blocks.size;
        return load<Floats>(blocks.poisoned + first + b * kLanes);
      };
      int64_t at = (image * call.tokens + first) * p.outputs;
      const float* residual = call.residual ? call.residual + at : nullptr;
      multiply_rows(p, plan, count, read, residual, call.y + at);
    });
  }
}

inline void linear(const LinearPanel& p, const LinearCall& call, const Parallel& parallel) {
  p.picks() ? linear_picked(p, call, parallel) : linear_in_place(p, call, parallel);
}

}  // namespace IGQ_TARGET
}  // namespace igq
