// Attention: scores of quantized q and k, softmax, its map in groups, its product with quantized v.
//
// Scores are computed with queries as lines and keys as rows, so that lane i of every vector
// belongs to query i of 16: softmax, groups and codes of the map need no sums across lanes.
#pragma once

#include "block.h"
#include "kernels.h"
#include "picked.h"
#include "product.h"

namespace igq {
namespace IGQ_TARGET {

// The keys and values of one head of one image, quantized.
struct Head {
  Rows* keys;          // blocks of 16, one group
  uint8_t* values;     // lines of 16 channels, of words of 4 tokens
  float* scale;        // (lines * 16): of v
  float* mean;         // (lines * 16): of the quantized v, over tokens
  int32_t* offset;     // (lines * 16): 128 less v's zero point where codes are less 128, or null
};

// A softmax map's groups of keys, and the words that they fill.
struct Keys {
  Contiguous groups;
  int32_t* ends;
  int64_t columns;
};

inline Keys keys_of(const AttentionPanel& p, int64_t tokens, Arena& arena) {
  Keys made{contiguous(tokens, p.rule == Rule::kOwn ? p.groups : 1), nullptr, 0};
  made.ends = arena.take<int32_t>(made.groups.groups);
  for (int64_t g = 0, start = 0; g < made.groups.groups; start = made.groups.end(g++)) {
    made.columns += round_up(made.groups.end(g) - start, 4);
    made.ends[g] = int32_t(made.columns / 4);
  }
  return made;
}

// Quantize 16 tokens of q or k, each with its own range.
template <Form Of>
inline void quantize_tokens(const float* block, int64_t width, int bits, const Rows& rows,
                            float* zero_points) {
  Floats low{}, high{}, scale, zero_point;
  for (int64_t i = 0; i < width; ++i) {
    Floats x = load<Floats>(block + i * kLanes);
    low = least(low, x), high = most(high, x);
  }
  parameters(low, high, bits, scale, zero_point);
  Affine by = affine<Of>(scale, zero_point, bits);
  auto at = [&](int64_t i) { return load<Floats>(block + i * kLanes); };
  Floats sum = encode<Of>(at, width, round_up(width, 4), by, rows.words);
  sum -= by.shift * float(width);
  store(rows.scales, scale);
  store(rows.sums, fused(sum, scale, poison(block, width)));
  if (rows.offsets) store(rows.offsets, __builtin_convertvector(-by.shift, Ints));
  if (zero_points) store(zero_points, zero_point);
}

inline Floats load_part(const float* from, int64_t count) {
  if (count >= kLanes) return load<Floats>(from);
  Floats made{};
  for (int64_t i = 0; i < count; ++i) made[i] = from[i];
  return made;
}

// Quantize 16 channels of v, each with its own range over the tokens; words are 4 tokens of a group.
inline void quantize_values(const AttentionPanel& p, const float* v, int64_t stride, int64_t line,
                            const Keys& keys, const Head& head) {
  int64_t count = p.width - line * kLanes;
  auto value = [&](int64_t t) { return load_part(v + t * stride + line * kLanes, count); };
  Floats low{}, high{}, scale, zero_point, poisoned{}, total{};
  for (int64_t t = 0; t < keys.groups.length; ++t) {
    Floats x = value(t);
    low = least(low, x), high = most(high, x), poisoned += x * 0.0f;
  }
  parameters(low, high, p.v_bits, scale, zero_point);
  Affine by = affine<Form::kSigned>(scale, zero_point, p.v_bits);
  auto* words = reinterpret_cast<int32_t*>(head.values + line * keys.columns * kLanes);
  for (int64_t g = 0, start = 0; g < keys.groups.groups; start = keys.groups.end(g++)) {
    int64_t word = g ? keys.ends[g - 1] : 0;
    auto at = [&](int64_t i) { return value(start + i); };
    total += encode<Form::kSigned>(at, keys.groups.end(g) - start, (keys.ends[g] - word) * 4, by,
                                   words + word * kLanes);
  }
  total -= by.shift * float(keys.groups.length);
  store(head.scale + line * kLanes, scale + poisoned);
  store(head.mean + line * kLanes, scale * total / float(keys.groups.length));
  if (head.offset) store(head.offset + line * kLanes, __builtin_convertvector(-by.shift, Ints));
}

// e^(score - greatest score) of each key, (keys, 16), and their sums.
inline Floats exponentials(float* scores, int64_t keys) {
  Floats greatest = load<Floats>(scores), sum{};
  for (int64_t k = 1; k < keys; ++k) greatest = most(greatest, load<Floats>(scores + k * kLanes));
  for (int64_t k = 0; k < keys; ++k) {
    Floats power = exponential(load<Floats>(scores + k * kLanes) - greatest);
    sum += power;
    store(scores + k * kLanes, power);
  }
  return sum;
}

// A quantized block of a softmax map: 16 queries.
struct Map {
  Rows rows;           // `offsets` are the sums of codes in each group
  Floats zero_points;  // of fitted groups
  Floats sum;          // of the quantized values
};

// Scale and zero point of the group that each of 16 rows picks by its least and greatest value.
inline void pick_rows(const AttentionPanel& p, const float* map, int64_t keys, Floats& scale,
                      Floats& zero_point) {
  Floats low = load<Floats>(map), high = low;
  for (int64_t k = 1; k < keys; ++k) {
    Floats x = load<Floats>(map + k * kLanes);
    low = least(low, x), high = most(high, x);
  }
  for (int i = 0; i < kLanes; ++i) {
    int64_t group = pick(p.rule, low[i], high[i], p.fitted, p.groups);
    scale[i] = p.fitted.scale[group], zero_point[i] = p.fitted.zero_point[group];
  }
}

// Quantize 16 rows of a map that is to be multiplied with `factor`; 1 for fitted groups.
inline void quantize_map_block(const AttentionPanel& p, const Keys& keys, const float* map,
                               Floats factor, Map& to) {
  to.sum = to.zero_points = Floats{};
  for (int64_t g = 0, start = 0; g < keys.groups.groups; start = keys.groups.end(g++)) {
    int64_t count = keys.groups.end(g) - start, word = g ? keys.ends[g - 1] : 0;
    const float* part = map + start * kLanes;
    Floats scale, zero_point{};
    if (p.rule == Rule::kOwn) {
      Floats low{}, high{};
      for (int64_t k = 0; k < count; ++k) {
        Floats x = load<Floats>(part + k * kLanes);
        low = least(low, x), high = most(high, x);
      }
      parameters(low, high, p.bits, scale, zero_point);
    } else {
      pick_rows(p, map, keys.groups.length, scale, zero_point);
    }
    Affine by = affine<Form::kUnsigned>(scale, zero_point, p.bits);
    auto at = [&](int64_t i) { return load<Floats>(part + i * kLanes); };
    int32_t* words = to.rows.words + word * kLanes;
    int64_t padded = (keys.ends[g] - word) * 4;
    Floats sum = encode<Form::kUnsigned>(at, count, padded, by, words);
    scale *= factor;
    store(to.rows.scales + g * kLanes, scale);
    store(to.rows.offsets + g * kLanes, __builtin_convertvector(sum, Ints));
    to.zero_points = zero_point;
    to.sum = fused(sum - zero_point * float(count), scale, to.sum);
  }
}

// Writes 16 channels of a query: v's scale times the product, and what rows lack of their sum.
struct Join {
  const AttentionPanel& p;
  const Head& head;
  const Map& map;
  int64_t tokens;
  float* y;  // of the first query of the block
  int64_t stride;

  IGQ_INLINE void operator()(int first, int count, int64_t line, Floats (&product)[kTileRows]) const {
    Floats scale = load<Floats>(head.scale + line * kLanes);
    Floats mean = load<Floats>(head.mean + line * kLanes);
    int64_t left = p.width - line * kLanes;
    each_row(count, [&](int r) IGQ_LAMBDA {
      int row = first + r;
      Floats value = product[r] * scale;
      if (p.rule != Rule::kOwn)  // codes of fitted groups have zero points: the sum of v times each
        value -= mean * (float(tokens) * map.zero_points[row] * map.rows.scales[row]);
      if (p.flags & kKeepsSum) value = fused(all(1.0f - map.sum[row]), mean, value);
      float* to = y + row * stride + line * kLanes;
      if (left >= kLanes) return store(to, value);
      for (int64_t i = 0; i < left; ++i) to[i] = value[i];
    });
  }
};

inline void quantize_head(const AttentionPanel& p, const float* k, const float* v, int64_t stride,
                          const Keys& keys, const Head& head, float* block) {
  for (int64_t first = 0; first < keys.groups.length; first += kLanes) {
    int count = int(std::min<int64_t>(kLanes, keys.groups.length - first));
    load_block(k + first * stride, stride, count, p.width, block);
    quantize_tokens<Form::kSigned>(block, p.width, p.k_bits, head.keys[first / kLanes], nullptr);
  }
  for (int64_t line = 0; line * kLanes < p.width; ++line)
    quantize_values(p, v, stride, line, keys, head);
}

// 16 queries of a head.
inline void attend(const AttentionPanel& p, const Head& head, const Keys& keys, const float* q,
                   int64_t stride, int count, float* y) {
  Arena arena;
  int64_t tokens = keys.groups.length, words = round_up(p.width, 4) / 4;
  int64_t blocks = (tokens + kLanes - 1) / kLanes, lines = (p.width + kLanes - 1) / kLanes;
  float* block = arena.take<float>(p.width * kLanes);
  Rows queries = Rows::take(arena, words * 4, 1, false);
  float* zero_points = arena.take<float>(kLanes);
  load_block(q, stride, count, p.width, block);
  quantize_tokens<Form::kUnsigned>(block, p.width, p.q_bits, queries, zero_points);
  int32_t* sums = arena.take<int32_t>(kLanes);  // of the queries' codes
  Ints sum{};
  for (int64_t w = 0; w < words; ++w)
    sum = dot<true>(sum, load<Ints>(queries.words + w * kLanes), all(0x01010101));
  store(sums, sum);

  float* scores = arena.take<float>(blocks * kLanes * kLanes);
  Floats factor = load<Floats>(queries.scales) * p.factor, zero_point = load<Floats>(zero_points);
  factor += load<Floats>(queries.sums) * 0.0f;  // NaN where q is
  int32_t end = int32_t(words);
  for (int64_t b = 0; b < blocks; ++b) {
    const Rows& k = head.keys[b];
    Product of{reinterpret_cast<const uint8_t*>(queries.words), 0, k.words, &end, 1, k.scales,
               k.offsets, sums, 0};
    float* to = scores + b * kLanes * kLanes;
    auto score = [&](int first, int count, int64_t, Floats(&product)[kTileRows]) {
      each_row(count, [&](int r) IGQ_LAMBDA {
        Floats value = fused(-zero_point, all(k.sums[first + r]), product[r]) * factor;
        store(to + (first + r) * kLanes, value);
      });
    };
    product<Wide>(of, int(std::min<int64_t>(kLanes, tokens - b * kLanes)), 1, score);
  }
  Floats factor_of_map = all(1.0f) / exponentials(scores, tokens);
  if (p.rule != Rule::kOwn) {  // which compares values with bounds
    for (int64_t t = 0; t < tokens; ++t)
      store(scores + t * kLanes, load<Floats>(scores + t * kLanes) * factor_of_map);
    factor_of_map = all(1.0f);
  }
  Map map{Rows::take(arena, keys.columns, keys.groups.groups, true), {}, {}};
  quantize_map_block(p, keys, scores, factor_of_map, map);
  Product of{head.values, keys.columns * kLanes, map.rows.words, keys.ends, keys.groups.groups,
             map.rows.scales, head.offset ? map.rows.offsets : nullptr, head.offset, 0};
  Join join{p, head, map, tokens, y, p.heads * p.width};
  product<WideRows>(of, count, lines, join);
}

inline void attention(const AttentionPanel& p, const AttentionCall& call, const Parallel& parallel) {
  Arena arena;
  Keys keys = keys_of(p, call.tokens, arena);
  int64_t blocks = (call.tokens + kLanes - 1) / kLanes, all_heads = call.images * p.heads;
  int64_t lines = (p.width + kLanes - 1) / kLanes;
  Head* heads = arena.take<Head>(all_heads);
  for (int64_t h = 0; h < all_heads; ++h) {
    Head& head = heads[h];
    head.keys = arena.take<Rows>(blocks);
    for (int64_t b = 0; b < blocks; ++b)
      head.keys[b] = Rows::take(arena, round_up(p.width, 4), 1, p.k_bits == 8);
    head.values = arena.take<uint8_t>(lines * keys.columns * kLanes);
    head.scale = arena.take<float>(lines * kLanes);
    head.mean = arena.take<float>(lines * kLanes);
    head.offset = p.v_bits == 8 ? arena.take<int32_t>(lines * kLanes) : nullptr;
  }
  auto place = [&](int64_t h) {
    return h / p.heads * call.tokens * call.stride + h % p.heads * p.width;
  };
  parallel(all_heads, [&](int64_t h) {
    Arena own;
    float* block = own.take<float>(p.width * kLanes);
    quantize_head(p, call.k + place(h), call.v + place(h), call.stride, keys, heads[h], block);
  });
  parallel(all_heads * blocks, [&](int64_t task) {
    int64_t h = task / blocks, first = task % blocks * kLanes;
    int count = int(std::min<int64_t>(kLanes, call.tokens - first));
    int64_t row = h / p.heads * call.tokens + first;
    attend(p, heads[h], keys, call.q + place(h) + first * call.stride, call.stride, count,
           call.y + row * p.heads * p.width + h % p.heads * p.width);
  });
}

}  // namespace IGQ_TARGET
}  // namespace igq
