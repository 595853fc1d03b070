// Calls of the library that a file holds, for a processor that is emulated: elsewhere TARGET < calls.
//
// A call is 8 numbers (which function, bytes of the panel, images, tokens, channels in, channels out,
// floats of x, floats of the residual or 0), the panel, x and the residual. What the function
// computed is written to the standard output, call by call.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" {
const char* igq_error();
const char* igq_target(const char*);
int igq_linear(const char*, const void*, int64_t, const float*, const float*, float*, int64_t,
               int64_t, int64_t, int64_t);
int igq_attention(const char*, const void*, int64_t, const float*, const float*, const float*,
                  int64_t, float*, int64_t, int64_t, int64_t);
int igq_quantize(const char*, const void*, int64_t, const float*, float*, int64_t, int64_t, int64_t);
}

template <class Element>
std::vector<Element> taken(int64_t count) {
  std::vector<Element> made(count);
  if (count && std::fread(made.data(), sizeof(Element), count, stdin) != size_t(count)) std::abort();
  return made;
}

int main(int, char** arguments) {
  const char* target = arguments[1];
  if (!igq_target(target)) return 3;
  int64_t call[8];
  while (std::fread(call, sizeof call, 1, stdin) == 1) {
    int64_t size = call[1], images = call[2], tokens = call[3], in = call[4], out = call[5];
    auto panel = taken<uint8_t>(size);
    auto x = taken<float>(call[6]), residual = taken<float>(call[7]);
    const float* added = call[7] ? residual.data() : nullptr;
    std::vector<float> y(images * tokens * out);
    int failed;
    if (call[0] == 0)
      failed = igq_quantize(target, panel.data(), size, x.data(), y.data(), images, tokens, in);
    else if (call[0] == 1)
      failed = igq_linear(target, panel.data(), size, x.data(), added, y.data(), images, tokens, in,
                          out);
    else
      failed = igq_attention(target, panel.data(), size, x.data(), x.data() + out,
                             x.data() + 2 * out, in, y.data(), images, tokens, out);
    if (failed) {
      std::fprintf(stderr, "%s\n", igq_error());
      return 2;
    }
    std::fwrite(y.data(), sizeof(float), y.size(), stdout);
  }
}
