// The threads that the library's functions for ctypes use.
#pragma once

#include "kernels.h"

namespace igq {

// The number of threads from now on; 1 where it is less.
void set_threads(int64_t count);

}  // namespace igq
