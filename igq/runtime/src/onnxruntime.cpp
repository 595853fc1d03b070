// The operators for onnxruntime: `igq.Linear` (x, panel, residual) and `igq.SelfAttention`
// (qkv, panel). A session registers them from this library (SessionOptions.register_custom_ops_
// library), on whose threads they run.
//
// onnxruntime promises that its C interface only ever grows: a table of functions, and a struct
// that says by its version how much of it is there. Only what is used is declared here, so that
// building needs no headers of any release.
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"

#define IGQ_EXPORT __attribute__((visibility("default")))

namespace igq {
namespace {

constexpr uint32_t kApiVersion = 17;  // onnxruntime 1.17
constexpr int kFloat = 1, kUint8 = 2;

struct Api {  // a table of functions, called by their place in it
  void* const* functions;

  template <class Result, class... Arguments>
  Result call(int place, Arguments... arguments) const {
    return reinterpret_cast<Result (*)(Arguments...)>(functions[place])(arguments...);
  }
};

struct ApiBase {
  void* const* (*get_api)(uint32_t version);
  const char* (*get_version)();
};

enum Place {
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kTensorData = 51,
  kElementType = 60,
  kDimensionsCount = 61,
  kDimensions = 62,
  kTensorShape = 65,
  kInputCount = 88,
  kInput = 90,
  kOutput = 91,
  kReleaseShape = 99,
  kParallelFor = 274,
};

// Throws what a function of the interface reports.
void check(void* status) {
  if (status) throw Error("onnxruntime refused a call of igq's operators.");
}

struct Tensor {
  void* data;
  std::vector<int64_t> shape;
  int64_t size;
};

class Context {
 public:
  Context(Api api, void* context) : api_(api), context_(context) {}

  Tensor input(size_t index, int type) const {
    void* value = nullptr;
    check(api_.call<void*>(kInput, context_, index, &value));
    if (!value) return {};
    void* shape = nullptr;
    check(api_.call<void*>(kTensorShape, value, &shape));
    int held = 0;
    size_t rank = 0;
    check(api_.call<void*>(kElementType, shape, &held));
    check(api_.call<void*>(kDimensionsCount, shape, &rank));
    Tensor made{nullptr, std::vector<int64_t>(rank), 1};
    check(api_.call<void*>(kDimensions, shape, made.shape.data(), rank));
    api_.call<void>(kReleaseShape, shape);
    check(api_.call<void*>(kTensorData, value, &made.data));
    for (int64_t length : made.shape) made.size *= length;
    if (held != type) throw Error("igq's operators take float32 and panels of uint8.");
    return made;
  }

  size_t inputs() const {
    size_t count = 0;
    check(api_.call<void*>(kInputCount, context_, &count));
    return count;
  }

  float* output(const std::vector<int64_t>& shape) const {
    void* value = nullptr;
    check(api_.call<void*>(kOutput, context_, size_t(0), shape.data(), shape.size(), &value));
    void* data = nullptr;
    check(api_.call<void*>(kTensorData, value, &data));
    return static_cast<float*>(data);
  }

  Parallel parallel() const {
    auto run = [](void* self, int64_t count, void (*task)(void*, size_t), void* data) {
      auto* context = static_cast<const Context*>(self);
      check(context->api_.call<void*>(kParallelFor, context->context_, task, size_t(count),
                                      size_t(0), data));
    };
    return {run, const_cast<Context*>(this), int64_t(std::thread::hardware_concurrency())};
  }

 private:
  Api api_;
  void* context_;
};

void expect(bool holds, const char* rule) {
  if (!holds) throw Error(std::string("the inputs of igq's operators must have ") + rule + ".");
}

// Images and tokens of (images, ..., channels).
std::pair<int64_t, int64_t> counts(const Tensor& x) {
  expect(x.shape.size() >= 2, "images and channels");
  int64_t images = x.shape[0], channels = x.shape.back(), tokens = 1;
  for (size_t i = 1; i + 1 < x.shape.size(); ++i) tokens *= x.shape[i];
  expect(tokens >= 1 && tokens <= kMostInputs && channels >= 1, "between 1 and 65536 tokens");
  return {images, tokens};
}

void linear(const Context& context) {
  Tensor x = context.input(0, kFloat), panel = context.input(1, kUint8), residual{};
  if (context.inputs() > 2) residual = context.input(2, kFloat);
  LinearPanel p = linear_panel(panel.data, panel.size);
  auto [images, tokens] = counts(x);
  expect(x.shape.back() == p.inputs, "as many channels as the panel");
  std::vector<int64_t> shape = x.shape;
  shape.back() = p.outputs;
  expect(!residual.data || residual.shape == shape, "a residual of the output's shape");
  auto* y = context.output(shape);
  if (x.size == 0) return;
  const auto* added = static_cast<const float*>(residual.data);
  kernels(nullptr)->linear(p, {static_cast<const float*>(x.data), added, y, images, tokens},
                           context.parallel());
}

void self_attention(const Context& context) {
  Tensor qkv = context.input(0, kFloat), panel = context.input(1, kUint8);
  AttentionPanel p = attention_panel(panel.data, panel.size);
  auto [images, tokens] = counts(qkv);
  int64_t channels = p.heads * p.width;
  expect(qkv.shape.size() == 3 && qkv.shape.back() == 3 * channels, "the channels of q, k and v");
  auto* y = context.output({images, tokens, channels});
  if (qkv.size == 0) return;
  const auto* q = static_cast<const float*>(qkv.data);
  AttentionCall call{q, q + channels, q + 2 * channels, 3 * channels, y, images, tokens};
  kernels(nullptr)->attention(p, call, context.parallel());
}

// onnxruntime's description of an operator (OrtCustomOp, as of version 17).
struct CustomOp {
  uint32_t version = kApiVersion;
  void* (*create_kernel)(const CustomOp*, void* const* api, const void* info) = nullptr;
  const char* (*name)(const CustomOp*) = nullptr;
  const char* (*provider)(const CustomOp*) = nullptr;
  int (*input_type)(const CustomOp*, size_t) = nullptr;
  size_t (*input_count)(const CustomOp*) = nullptr;
  int (*output_type)(const CustomOp*, size_t) = nullptr;
  size_t (*output_count)(const CustomOp*) = nullptr;
  void (*compute)(void*, void*) = nullptr;
  void (*destroy)(void*) = nullptr;
  int (*input_characteristic)(const CustomOp*, size_t) = nullptr;
  int (*output_characteristic)(const CustomOp*, size_t) = nullptr;
  int (*input_memory)(const CustomOp*, size_t) = nullptr;
  int (*variadic_input_least)(const CustomOp*) = nullptr;
  int (*variadic_input_alike)(const CustomOp*) = nullptr;
  int (*variadic_output_least)(const CustomOp*) = nullptr;
  int (*variadic_output_alike)(const CustomOp*) = nullptr;
  void* (*create_kernel_2)(const CustomOp*, void* const* api, const void*, void**) = nullptr;
  void* (*compute_2)(void* kernel, void* context) = nullptr;
  void* (*infer_shape)(const CustomOp*, void*) = nullptr;
  int (*start_version)(const CustomOp*) = nullptr;
  int (*end_version)(const CustomOp*) = nullptr;
};

struct Kernel {
  Api api;
  void (*compute)(const Context&);
};

template <void (*Compute)(const Context&)>
CustomOp custom_op(const char* (*name)(const CustomOp*), size_t (*inputs)(const CustomOp*)) {
  CustomOp op;
  op.name = name;
  op.provider = [](const CustomOp*) -> const char* { return nullptr; };
  op.input_count = inputs;
  op.input_type = [](const CustomOp*, size_t index) { return index == 1 ? kUint8 : kFloat; };
  op.output_count = [](const CustomOp*) { return size_t(1); };
  op.output_type = [](const CustomOp*, size_t) { return kFloat; };
  op.input_characteristic = [](const CustomOp*, size_t index) { return index == 2 ? 1 : 0; };
  op.output_characteristic = [](const CustomOp*, size_t) { return 0; };
  op.input_memory = [](const CustomOp*, size_t) { return 0; };
  op.variadic_input_least = op.variadic_output_least = [](const CustomOp*) { return 1; };
  op.variadic_input_alike = op.variadic_output_alike = [](const CustomOp*) { return 0; };
  op.start_version = [](const CustomOp*) { return 1; };
  op.end_version = [](const CustomOp*) { return INT32_MAX; };
  op.destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.create_kernel_2 = [](const CustomOp*, void* const* api, const void*, void** made) -> void* {
    *made = new Kernel{{api}, Compute};
    return nullptr;
  };
  op.compute_2 = [](void* self, void* context) -> void* {
    const auto* kernel = static_cast<const Kernel*>(self);
    try {
      kernel->compute(Context(kernel->api, context));
      return nullptr;
    } catch (const std::exception& error) {  // 2: an invalid argument
      return kernel->api.call<void*>(kCreateStatus, 2, error.what());
    }
  };
  return op;
}

const CustomOp kLinear = custom_op<linear>([](const CustomOp*) { return "Linear"; },
                                           [](const CustomOp*) { return size_t(3); });
const CustomOp kSelfAttention = custom_op<self_attention>(
    [](const CustomOp*) { return "SelfAttention"; }, [](const CustomOp*) { return size_t(2); });

}  // namespace
}  // namespace igq

extern "C" IGQ_EXPORT void* RegisterCustomOps(void* options, const igq::ApiBase* base) {
  void* const* functions = base->get_api(igq::kApiVersion);
  if (!functions) return nullptr;  // the session then says that it does not know the operators
  igq::Api api{functions};
  void* domain = nullptr;
  if (void* status = api.call<void*>(igq::kCreateCustomOpDomain, "igq", &domain)) return status;
  for (const igq::CustomOp* op : {&igq::kLinear, &igq::kSelfAttention})
    if (void* status = api.call<void*>(igq::kCustomOpDomainAdd, domain, op)) return status;
  return api.call<void*>(igq::kAddCustomOpDomain, options, domain);
}
