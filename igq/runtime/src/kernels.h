// The operators, compiled for several instruction sets, of which `kernels()` returns the best one
// that this processor has. Code in namespace IGQ_TARGET must not be shared between them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "panel.h"

namespace igq {

// Runs tasks 0 .. count - 1, on other threads too where there are some.
struct Parallel {
  void (*run)(void* self, int64_t count, void (*task)(void* data, size_t index), void* data);
  void* self;
  int64_t threads;

  template <class Task>
  IGQ_INLINE void operator()(int64_t count, const Task& task) const {
    auto call = [](void* data, size_t index) { (*static_cast<const Task*>(data))(int64_t(index)); };
    if (count == 1) return task(0);
    run(self, count, call, const_cast<void*>(static_cast<const void*>(&task)));
  }
};

// Memory of one thread that is used again: `take` returns 64-byte aligned bytes, which all end with
// the `Arena` that was taken from.
class Arena {
 public:
  Arena();
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  template <class Element>
  IGQ_INLINE Element* take(int64_t count) {
    return static_cast<Element*>(bytes(count * int64_t(sizeof(Element))));
  }

 private:
  void* bytes(int64_t size);
  size_t chunk_, used_;
};

struct LinearCall {
  const float* x;         // (images, tokens, inputs)
  const float* residual;  // (images, tokens, outputs), added to the outputs; or null
  float* y;               // (images, tokens, outputs)
  int64_t images, tokens;
};

struct AttentionCall {
  const float *q, *k, *v;  // (images, tokens, heads, width), their tokens `stride` apart
  int64_t stride;
  float* y;  // (images, tokens, heads * width)
  int64_t images, tokens;
};

struct Kernels {
  const char* name;
  void (*linear)(const LinearPanel&, const LinearCall&, const Parallel&);
  void (*attention)(const AttentionPanel&, const AttentionCall&, const Parallel&);
  // The quantized input of a linear layer, as values: y is (images, tokens, inputs).
  void (*quantize)(const LinearPanel&, const LinearCall&);
  // Quantized rows of a softmax map, as values: x and y are (rows, keys).
  void (*quantize_map)(const AttentionPanel&, const float* x, int64_t rows, int64_t keys, float* y);
};

// The kernels of an instruction set: "avx512", "avx_vnni", "avx2", "arm_i8mm" or "portable"; null
// where the processor or the build has none. The best one where `name` is null.
const Kernels* kernels(const char* name);

}  // namespace igq
