// The operators for one instruction set: compiled with IGQ_TARGET and the compiler's options for it.
#include "kernels.h"

#include "attention.h"
#include "picked.h"

#define IGQ_TEXT(name) #name
#define IGQ_NAME(name) IGQ_TEXT(name)

namespace igq {
namespace IGQ_TARGET {
namespace {

const Parallel kAlone{[](void*, int64_t count, void (*task)(void*, size_t), void* data) {
                        for (int64_t i = 0; i < count; ++i) task(data, size_t(i));
                      },
                      nullptr, 1};

void write_values(const LinearPanel& p, const Plan& plan, const Rows& rows, int count, float* y) {
  const auto* codes = reinterpret_cast<const int8_t*>(rows.words);
  for (int64_t g = 0; g < plan.groups; ++g) {
    int64_t column = g ? plan.ends[g - 1] * 4 : 0;
    for (int64_t i = plan.starts[g]; i < plan.starts[g + 1]; ++i, ++column) {
      int64_t channel = plan.channels ? plan.channels[i] : i;
      for (int row = 0; row < count; ++row) {
        int code = codes[column / 4 * 64 + row * 4 + column % 4];
        if (rows.offsets) code += rows.offsets[g * kLanes + row];
        y[row * p.inputs + channel] = float(code) * rows.scales[g * kLanes + row];
      }
    }
  }
}

void quantize(const LinearPanel& p, const LinearCall& call) {
  for (int64_t image = 0; image < call.images; ++image) {
    Arena arena;
    int64_t at = image * call.tokens * p.inputs;
    Blocks blocks = read_blocks(p, call.x + at, call.tokens, arena, kAlone);
    Plan plan = p.picks() ? plan_of_picks(p, blocks, arena) : plan_of(p, arena);
    Rows rows = Rows::take(arena, plan.columns, plan.groups, p.bits == 8);
    for (int64_t b = 0; b < blocks.count(); ++b) {
      Floats poisoned = load<Floats>(blocks.poisoned + b * kLanes);
      quantize_block(p, plan, blocks.values + b * blocks.size, poisoned, rows);
      write_values(p, plan, rows, blocks.rows(b), call.y + at + b * kLanes * p.inputs);
    }
  }
}

void quantize_map(const AttentionPanel& p, const float* x, int64_t rows, int64_t keys, float* y) {
  Arena arena;
  Keys laid_out = keys_of(p, keys, arena);
  float* block = arena.take<float>(keys * kLanes);
  Map map{Rows::take(arena, laid_out.columns, laid_out.groups.groups, true), {}, {}};
  const auto* codes = reinterpret_cast<const uint8_t*>(map.rows.words);
  for (int64_t first = 0; first < rows; first += kLanes) {
    int count = int(std::min<int64_t>(kLanes, rows - first));
    load_block(x + first * keys, keys, count, keys, block);
    quantize_map_block(p, laid_out, block, all(1.0f), map);
    for (int64_t g = 0, key = 0; g < laid_out.groups.groups; ++g) {
      int64_t column = g ? laid_out.ends[g - 1] * 4 : 0;
      for (; key < laid_out.groups.end(g); ++key, ++column)
        for (int row = 0; row < count; ++row)
          y[(first + row) * keys + key] =
              (float(codes[column / 4 * 64 + row * 4 + column % 4]) - map.zero_points[row]) *
              map.rows.scales[g * kLanes + row];
    }
  }
}

}  // namespace

extern const Kernels table;
const Kernels table{IGQ_NAME(IGQ_TARGET), linear, attention, quantize, quantize_map};

}  // namespace IGQ_TARGET
}  // namespace igq
