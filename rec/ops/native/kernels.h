/* All kernels for one instruction set, then its names are free for the next. */
#include "simd.h"
#include "../causal_conv1d/kernels.h"
#include "../jagged_attention/kernels.h"
#include "../selective_scan/kernels.h"
#undef V
#undef I
#undef LANES_AT
#undef LANES
#undef FN
