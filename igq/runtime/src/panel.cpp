#include "panel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

namespace igq {
namespace {

constexpr int64_t kHeader = 16;  // numbers

void expect(bool holds, const char* rule) {
  if (!holds) throw Error(std::string("a panel must have ") + rule + ", but has not.");
}

bool between(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

// Hands out the sections of a panel in order, each filled up to whole cache lines.
class Sections {
 public:
  Sections(const void* bytes, int64_t size) : at_(static_cast<const uint8_t*>(bytes)), left_(size) {}

  template <class Element>
  const Element* take(int64_t count) {
    int64_t size = round_up(count * int64_t(sizeof(Element)), kAlignment);
    expect(size <= left_, "as many bytes as its numbers ask for");
    const auto* taken = reinterpret_cast<const Element*>(at_);
    at_ += size;
    left_ -= size;
    return taken;
  }

  const float* finite(int64_t count) {
    const float* taken = take<float>(count);
    bool finite = true;
    for (int64_t i = 0; i < count; ++i) finite &= std::fabs(taken[i]) <= 3.0e38f;
    expect(finite, "finite numbers");
    return taken;
  }

  void end() const { expect(left_ == 0, "no bytes beyond its sections"); }

 private:
  const uint8_t* at_;
  int64_t left_;
};

const int32_t* header(Sections& sections, int32_t magic) {
  const int32_t* numbers = sections.take<int32_t>(kHeader);
  expect(numbers[0] == magic, "the mark of its operator");
  expect(numbers[1] == kVersion, "the version of this runtime");
  return numbers;
}

float as_float(int32_t number) {
  float made;
  std::memcpy(&made, &number, sizeof made);
  return made;
}

bool whole(float value, int32_t bits) {
  return value >= 0 && value < float(1 << bits) && value == std::floor(value);
}

Fitted fitted(Sections& sections, Rule rule, int64_t groups, int32_t bits) {
  if (rule == Rule::kOwn) return {};
  Fitted made{sections.finite(groups), sections.finite(groups), sections.finite(groups),
              sections.finite(groups)};
  for (int64_t g = 0; g < groups; ++g) {
    expect(made.lower[g] <= made.upper[g], "lower bounds below upper ones");
    expect(made.scale[g] > 0, "positive scales");
    expect(whole(made.zero_point[g], bits), "zero points that are codes");
  }
  return made;
}

}  // namespace

LinearPanel linear_panel(const void* bytes, int64_t size) {
  Sections sections(bytes, size);
  const int32_t* n = header(sections, kMagicLinear);
  LinearPanel p{};
  p.inputs = n[2], p.outputs = n[3], p.weight_bits = n[4], p.bits = n[5];
  p.rule = Rule(n[6]), p.groups = n[7], p.rotated = n[8], p.flags = n[9], p.epsilon = as_float(n[10]);
  expect(between(p.inputs, 1, kMostInputs), "between 1 and 65536 inputs");
  expect(between(p.outputs, 1, kMostInputs), "between 1 and 65536 outputs");
  expect(between(p.weight_bits, 2, 8) && between(p.bits, 2, 8), "between 2 and 8 bits");
  expect(between(n[6], 0, 2), "a rule of this runtime");
  expect(between(p.groups, 1, kMostGroups), "between 1 and 1024 groups");
  expect(p.rotated == 0 || (between(p.rotated, 1, kMostRotated) &&
                            (p.rotated & (p.rotated - 1)) == 0 && p.inputs % p.rotated == 0),
         "a rotation whose width is a power of 2 that divides its inputs");
  expect((p.flags & ~(kNorm | kGelu)) == 0, "flags of this runtime");
  expect(std::isfinite(p.epsilon) && p.epsilon >= 0, "a finite epsilon");
  int64_t filled = p.lines() * kLineOutputs;
  p.scale = sections.finite(filled);
  p.zero_point = sections.finite(filled);
  p.bias = sections.finite(filled);
  bool codes = true;
  for (int64_t i = 0; i < p.outputs; ++i) codes &= whole(p.zero_point[i], p.weight_bits);
  expect(codes, "zero points that are codes");
  if (p.flags & kNorm) p.gain = sections.finite(p.inputs), p.shift = sections.finite(p.inputs);
  if (p.rotated) p.signs = sections.finite(p.rotated);
  p.fitted = fitted(sections, p.rule, p.groups, p.bits);
  int64_t columns = 0;
  if (p.picks()) {
    columns = p.inputs;
  } else {
    Contiguous held = contiguous(p.inputs, p.rule == Rule::kOwn ? p.groups : 1);
    for (int64_t g = 0, start = 0; g < held.groups; start = held.end(g++))
      columns += round_up(held.end(g) - start, p.step());
  }
  p.codes = sections.take<uint8_t>(filled * columns / (p.halves() ? 2 : 1));
  sections.end();
  return p;
}

AttentionPanel attention_panel(const void* bytes, int64_t size) {
  Sections sections(bytes, size);
  const int32_t* n = header(sections, kMagicAttention);
  AttentionPanel p{};
  p.heads = n[2], p.width = n[3], p.q_bits = n[4], p.k_bits = n[5], p.v_bits = n[6], p.bits = n[7];
  p.rule = Rule(n[8]), p.groups = n[9], p.flags = n[10], p.factor = as_float(n[11]);
  expect(between(p.heads, 1, 1024) && between(p.width, 1, 1024), "between 1 and 1024 heads of 1 to 1024 channels");
  for (int32_t bits : {p.q_bits, p.k_bits, p.v_bits, p.bits})
    expect(between(bits, 2, 8), "between 2 and 8 bits");
  expect(between(n[8], 0, 2), "a rule of this runtime");
  expect(between(p.groups, 1, kMostGroups), "between 1 and 1024 groups");
  expect((p.flags & ~kKeepsSum) == 0, "flags of this runtime");
  expect(std::isfinite(p.factor), "a finite factor");
  p.fitted = fitted(sections, p.rule, p.groups, p.bits);
  sections.end();
  return p;
}

Contiguous contiguous(int64_t length, int64_t num_groups) {
  constexpr int64_t kCells = 24, kMostCells = 32, kFewestCells = 12;
  int64_t cells = 0;
  if (length % kCells == 0) {
    cells = kCells;
  } else {
    for (int64_t count = 1; count <= kMostCells; ++count)
      if (length % count == 0) cells = count;
    if (cells < std::min(kFewestCells, length)) {
      int64_t width = (length + kCells - 1) / kCells;
      cells = (length + width - 1) / width;
    }
  }
  int64_t width = (length + cells - 1) / cells;
  int64_t together = (cells + num_groups - 1) / num_groups;
  return {length, width * together, (cells + together - 1) / together};
}

}  // namespace igq
