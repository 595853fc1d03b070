// The library's functions for ctypes, the choice of kernels, and the threads and memory they use.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"

#if defined(IGQ_ARM)
#include <sys/auxv.h>
#endif

namespace igq {

#define IGQ_DECLARE(target) \
  namespace target {        \
  extern const Kernels table; \
  }
IGQ_DECLARE(portable)
#if defined(IGQ_X86)
IGQ_DECLARE(avx2)
IGQ_DECLARE(avx_vnni)
IGQ_DECLARE(avx512)
#endif
#if defined(IGQ_ARM)
IGQ_DECLARE(arm_i8mm)
#endif

const Kernels* kernels(const char* name) {
  struct Known {
    const Kernels* kernels;
    bool runs;
  };
  std::vector<Known> known;
#if defined(IGQ_X86)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vnni");
  known.push_back({&avx512::table, avx512});
  known.push_back({&avx_vnni::table, avx2 && __builtin_cpu_supports("avxvnni")});
  known.push_back({&avx2::table, avx2});
#endif
#if defined(IGQ_ARM)
  constexpr unsigned long kMixedProducts = 1ul << 13;  // HWCAP2_I8MM, which old headers lack
  known.push_back({&arm_i8mm::table, (getauxval(AT_HWCAP2) & kMixedProducts) != 0});
#endif
  known.push_back({&portable::table, true});
  for (const Known& one : known)
    if (one.runs && (!name || !std::strcmp(name, one.kernels->name))) return one.kernels;
  return nullptr;
}

namespace {

struct Chunks {
  struct Chunk {
    std::unique_ptr<uint8_t[]> bytes;
    size_t size;
  };
  std::vector<Chunk> chunks;
  size_t chunk = 0, used = 0;  // where the next bytes are taken

  void* take(size_t size) {
    size = size_t(round_up(int64_t(size), kAlignment));
    while (chunk < chunks.size() && used + size > chunks[chunk].size) ++chunk, used = 0;
    if (chunk == chunks.size()) {
      size_t made = std::max(size, size_t(1) << 20);
      chunks.push_back({std::make_unique<uint8_t[]>(made + kAlignment), made});
      used = 0;
    }
    auto start = reinterpret_cast<uintptr_t>(chunks[chunk].bytes.get());
    start = uintptr_t(round_up(int64_t(start), kAlignment)) + used;
    used += size;
    return reinterpret_cast<void*>(start);
  }
};

thread_local Chunks t_chunks;

// Threads that wait for work, and the one that brings it works too. One piece of work at a time:
// a caller that finds them busy works alone.
class Pool {
 public:
  explicit Pool(int64_t threads) {
    for (int64_t i = 1; i < threads; ++i) threads_.emplace_back([this] { serve(); });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ending_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  int64_t threads() const { return int64_t(threads_.size()) + 1; }

  void run(int64_t count, void (*task)(void*, size_t), void* data) {
    std::unique_lock<std::mutex> one(busy_, std::try_to_lock);
    if (!one || threads_.empty()) {
      for (int64_t i = 0; i < count; ++i) task(data, size_t(i));
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = task, data_ = data, count_ = count, next_ = 0;
      working_ = int64_t(threads_.size());
      ++round_;
    }
    wake_.notify_all();
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return working_ == 0; });
  }

 private:
  void work() {
    for (int64_t i = next_++; i < count_; i = next_++) task_(data_, size_t(i));
  }

  void serve() {
    int64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return ending_ || round_ != seen; });
        if (ending_) return;
        seen = round_;
      }
      work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--working_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_, busy_;
  std::condition_variable wake_, done_;
  std::atomic<int64_t> next_{0};
  void (*task_)(void*, size_t) = nullptr;
  void* data_ = nullptr;
  int64_t count_ = 0, round_ = 0, working_ = 0;
  bool ending_ = false;
};

std::mutex g_mutex;
std::shared_ptr<Pool> g_pool;

std::shared_ptr<Pool> pool() {
  std::lock_guard<std::mutex> lock(g_mutex);
  if (!g_pool) g_pool = std::make_shared<Pool>(1);
  return g_pool;
}

}  // namespace

Arena::Arena() : chunk_(t_chunks.chunk), used_(t_chunks.used) {}
Arena::~Arena() { t_chunks.chunk = chunk_, t_chunks.used = used_; }
void* Arena::bytes(int64_t size) { return t_chunks.take(size_t(size)); }

// Use this many threads from now on; 1 where it is less.
void set_threads(int64_t count) {
  count = std::max<int64_t>(1, std::min<int64_t>(count, 256));
  std::lock_guard<std::mutex> lock(g_mutex);
  if (!g_pool || g_pool->threads() != count) g_pool = std::make_shared<Pool>(count);
}

}  // namespace igq

namespace {

thread_local std::string t_error;

// Run what may throw; return 0, or 1 with the reason in `igq_error`.
template <class Work>
int guarded(const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    t_error = error.what();
    return 1;
  }
}

const igq::Kernels& wanted(const char* target) {
  const igq::Kernels* found = igq::kernels(target && *target ? target : nullptr);
  if (!found) throw igq::Error("this processor has no such instructions.");
  return *found;
}

// Runs `work(parallel)` with the threads there are; a pool that is replaced meanwhile lives on.
template <class Work>
void with_threads(const Work& work) {
  std::shared_ptr<igq::Pool> pool = igq::pool();
  auto run = [](void* self, int64_t count, void (*task)(void*, size_t), void* data) {
    static_cast<igq::Pool*>(self)->run(count, task, data);
  };
  work(igq::Parallel{run, pool.get(), pool->threads()});
}

void check_size(int64_t images, int64_t tokens) {
  if (images < 0 || tokens < 1 || tokens > igq::kMostInputs)
    throw igq::Error("an input must have between 1 and 65536 tokens.");
}

void check_shape(int64_t wanted, int64_t given) {
  if (wanted != given)
    throw igq::Error("the panel is for " + std::to_string(wanted) + " channels, but got " +
                     std::to_string(given) + ".");
}

}  // namespace

#define IGQ_EXPORT __attribute__((visibility("default")))

extern "C" {

IGQ_EXPORT const char* igq_error() { return t_error.c_str(); }

IGQ_EXPORT const char* igq_target(const char* target) {
  const igq::Kernels* found = igq::kernels(target && *target ? target : nullptr);
  return found ? found->name : nullptr;
}

IGQ_EXPORT void igq_set_threads(int64_t count) { igq::set_threads(count); }

IGQ_EXPORT int igq_linear(const char* target, const void* panel, int64_t size, const float* x,
               const float* residual, float* y, int64_t images, int64_t tokens, int64_t inputs,
               int64_t outputs) {
  return guarded([&] {
    check_size(images, tokens);
    auto p = igq::linear_panel(panel, size);
    check_shape(p.inputs, inputs);
    check_shape(p.outputs, outputs);
    if (images == 0) return;
    with_threads([&](const igq::Parallel& parallel) {
      wanted(target).linear(p, {x, residual, y, images, tokens}, parallel);
    });
  });
}

IGQ_EXPORT int igq_attention(const char* target, const void* panel, int64_t size, const float* q,
                  const float* k, const float* v, int64_t stride, float* y, int64_t images,
                  int64_t tokens, int64_t channels) {
  return guarded([&] {
    check_size(images, tokens);
    auto p = igq::attention_panel(panel, size);
    check_shape(p.heads * p.width, channels);
    if (images == 0) return;
    with_threads([&](const igq::Parallel& parallel) {
      wanted(target).attention(p, {q, k, v, stride, y, images, tokens}, parallel);
    });
  });
}

IGQ_EXPORT int igq_quantize(const char* target, const void* panel, int64_t size, const float* x, float* y,
                 int64_t images, int64_t tokens, int64_t inputs) {
  return guarded([&] {
    check_size(images, tokens);
    auto p = igq::linear_panel(panel, size);
    check_shape(p.inputs, inputs);
    wanted(target).quantize(p, {x, nullptr, y, images, tokens});
  });
}

IGQ_EXPORT int igq_quantize_map(const char* target, const void* panel, int64_t size, const float* x, float* y,
                     int64_t rows, int64_t keys) {
  return guarded([&] {
    check_size(rows, keys);
    auto p = igq::attention_panel(panel, size);
    wanted(target).quantize_map(p, x, rows, keys, y);
  });
}

}  // extern "C"
