/* Kernels for the CPU without PyTorch's headers: Python passes addresses of float32 and int64 tensors (rec/ops/native).
 *
 * Each kernel is compiled for AVX-512, for AVX2 with FMA and for whatever the build targets; the first that the
 * machine has is taken when it runs, so one binary serves all.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 64        /* steps whose states the backward keeps at once */
#define MAX_STATES 256  /* of one channel */
#define MAX_TAPS 16
#define MOST_LANES 16
#define BLOCK_VECTORS 4 /* of queries that are worked on at once */
#define LOWEST -1e30f   /* below any score */
#define LN2 0.69314718f
#define LOG2E 1.44269504f
#define INLINE static inline __attribute__((always_inline))

/* What a scan reads and writes, for rows first..last-1, and its workspace. */
struct scan {
  int64_t first, last, E, S;
  const int64_t *offsets;
  const float *u, *dt, *A, *B, *C, *D, *gy, *h0;
  int64_t u_ld, dt_ld, B_ld, C_ld, gy_ld;
  float *y, *h1, *du, *ddt, *dA, *dB, *dC, *dD;
  /* [blocks, S] vectors: A log2(e), its gradient, the gradient of the state; of every chunk's first state. */
  float *A2, *dA2, *carry, *starts, *dD2;
  /* [CHUNK, S] vectors of one block, and sums over the blocks. */
  float *states, *decays, *sumB, *sumC;
};

struct powers {
  int64_t count;
  const float *x;
  float *y;
};

/* The same for the convolution. */
struct conv {
  int64_t first, last, E, K;
  const int64_t *offsets;
  const float *x, *w, *b, *gy;
  int64_t x_ld, gy_ld;
  float *y, *dx, *dw, *db;
};

/* And for attention: q, k, v and their gradients are [N, H K], rows ld (d_ld) numbers apart. */
struct attention {
  int64_t first, last, H, K, causal;
  const int64_t *offsets, *kept;
  const float *q, *k, *v, *g;
  int64_t ld, g_ld, d_ld;
  float scale;
  float *out, *stats, *dq, *dk, *dv; /* stats: largest score times log2(e), and 1 / sum, [N, H, 2] */
  /* One head and block of queries: [K, queries], [keys, queries] twice, [queries, padded K] twice, [keys, padded K]
   * twice. */
  float *turned_q, *turned_g, *weights, *slopes, *rows_q, *rows_g, *sum_dk, *sum_dv;
};

#define LANES 4
#define FN(name) name##_plain
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAS_VARIANTS 1

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LANES 8
#define FN(name) name##_avx2
#include "kernels.h"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl")
#define LANES 16
#define FN(name) name##_avx512
#include "kernels.h"
#pragma GCC pop_options
#endif

static int variant = 0;

#ifdef HAS_VARIANTS
#define CALL(name, argument)                                       \
  do {                                                             \
    if (variant == 2) name##_avx512(argument);                     \
    else if (variant == 1) name##_avx2(argument);                  \
    else name##_plain(argument);                                   \
  } while (0)
#else
#define CALL(name, argument) name##_plain(argument)
#endif

/* Changes with any signature here: a library of an older build is not used. */
int rec_version(void) { return 2; }

/* Takes the best instruction set up to `most` (0 plain, 1 AVX2, 2 AVX-512), and returns it. */
int rec_choose(int64_t most) {
  int best = 0;
#ifdef HAS_VARIANTS
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = 1;
  const int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl");
  if (best && wide) best = 2;
#endif
  variant = best < most ? best : (int)most;
  return variant;
}

/* The kernels' own 2^x, for its test. */
int rec_exp2(int64_t count, const float *x, float *y) {
  struct powers p = {count, x, y};
  CALL(powers_of_two, &p);
  return 0;
}

static float *vectors(int64_t count) {
  return aligned_alloc(64, (size_t)(count > 0 ? count : 1) * MOST_LANES * sizeof(float));
}

/* Vectors of MOST_LANES channels that hold `E`. Narrower vectors need as much room, up to their last block. */
static int64_t blocks_of(int64_t E) { return (E + MOST_LANES - 1) / MOST_LANES; }

int rec_scan_forward(int64_t first, int64_t last, int64_t E, int64_t S, const int64_t *offsets, const float *u,
                     int64_t u_ld, const float *dt, int64_t dt_ld, const float *A, const float *B, int64_t B_ld,
                     const float *C, int64_t C_ld, const float *D, const float *h0, float *y, float *h1) {
  struct scan p = {.first = first, .last = last, .E = E, .S = S, .offsets = offsets, .u = u, .u_ld = u_ld, .dt = dt,
                   .dt_ld = dt_ld, .A = A, .B = B, .B_ld = B_ld, .C = C, .C_ld = C_ld, .D = D, .h0 = h0, .y = y,
                   .h1 = h1};
  p.A2 = vectors(blocks_of(E) * S);
  if (!p.A2) return 1;
  CALL(scan_forward, &p);
  free(p.A2);
  return 0;
}

int rec_scan_backward(int64_t first, int64_t last, int64_t E, int64_t S, const int64_t *offsets, const float *u,
                      int64_t u_ld, const float *dt, int64_t dt_ld, const float *A, const float *B, int64_t B_ld,
                      const float *C, int64_t C_ld, const float *D, const float *gy, int64_t gy_ld, float *du,
                      float *ddt, float *dA, float *dB, float *dC, float *dD) {
  struct scan p = {.first = first, .last = last, .E = E, .S = S, .offsets = offsets, .u = u, .u_ld = u_ld, .dt = dt,
                   .dt_ld = dt_ld, .A = A, .B = B, .B_ld = B_ld, .C = C, .C_ld = C_ld, .D = D, .gy = gy,
                   .gy_ld = gy_ld, .du = du, .ddt = ddt, .dA = dA, .dB = dB, .dC = dC, .dD = dD};
  int64_t longest = 0;
  for (int64_t row = first; row < last; row++)
    if (offsets[row + 1] - offsets[row] > longest) longest = offsets[row + 1] - offsets[row];
  const int64_t width = blocks_of(E) * S, chunks = (longest + CHUNK - 1) / CHUNK;
  float *space = vectors((3 + chunks) * width + blocks_of(E) + (4 * CHUNK + 1) * S), *next = space;
  if (!space) return 1;
  const struct { float **to; int64_t count; } parts[] = {
      {&p.A2, width}, {&p.dA2, width}, {&p.carry, width}, {&p.starts, chunks * width}, {&p.dD2, blocks_of(E)},
      {&p.states, (CHUNK + 1) * S}, {&p.decays, CHUNK * S}, {&p.sumB, CHUNK * S}, {&p.sumC, CHUNK * S}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    *parts[i].to = next;
    next += parts[i].count * MOST_LANES;
  }
  memset(p.dA2, 0, (size_t)width * MOST_LANES * sizeof(float));
  memset(p.dD2, 0, (size_t)blocks_of(E) * MOST_LANES * sizeof(float));
  CALL(scan_backward, &p);
  free(space);
  return 0;
}

int rec_conv_forward(int64_t first, int64_t last, int64_t E, int64_t K, const int64_t *offsets, const float *x,
                     int64_t x_ld, const float *w, const float *b, float *y) {
  struct conv p = {.first = first, .last = last, .E = E, .K = K, .offsets = offsets, .x = x, .x_ld = x_ld, .w = w,
                   .b = b, .y = y};
  CALL(conv_forward, &p);
  return 0;
}

int rec_conv_backward(int64_t first, int64_t last, int64_t E, int64_t K, const int64_t *offsets, const float *x,
                      int64_t x_ld, const float *w, const float *b, const float *gy, int64_t gy_ld, float *dx,
                      float *dw, float *db) {
  struct conv p = {.first = first, .last = last, .E = E, .K = K, .offsets = offsets, .x = x, .x_ld = x_ld, .w = w,
                   .b = b, .gy = gy, .gy_ld = gy_ld, .dx = dx, .dw = dw, .db = db};
  CALL(conv_backward, &p);
  return 0;
}

static int64_t most_kept(const struct attention *p) {
  int64_t most = 0;
  for (int64_t row = p->first; row < p->last; row++)
    if (p->kept[row] > most) most = p->kept[row];
  return most;
}

int rec_attention_forward(int64_t first, int64_t last, int64_t H, int64_t K, const int64_t *offsets,
                          const int64_t *kept, const float *q, const float *k, const float *v, int64_t ld,
                          float scale, int64_t causal, float *out, float *stats) {
  struct attention p = {.first = first, .last = last, .H = H, .K = K, .causal = causal, .offsets = offsets,
                        .kept = kept, .q = q, .k = k, .v = v, .ld = ld, .scale = scale, .out = out, .stats = stats};
  const int64_t keys = most_kept(&p) + 1;
  float *space = vectors((K + keys) * BLOCK_VECTORS);
  if (!space) return 1;
  p.turned_q = space;
  p.weights = space + K * BLOCK_VECTORS * MOST_LANES;
  CALL(attention_forward, &p);
  free(space);
  return 0;
}

int rec_attention_backward(int64_t first, int64_t last, int64_t H, int64_t K, const int64_t *offsets,
                           const int64_t *kept, const float *q, const float *k, const float *v, int64_t ld,
                           float scale, int64_t causal, const float *out, const float *stats, const float *g,
                           int64_t g_ld, float *dq, float *dk, float *dv, int64_t d_ld) {
  struct attention p = {.first = first, .last = last, .H = H, .K = K, .causal = causal, .offsets = offsets,
                        .kept = kept, .q = q, .k = k, .v = v, .ld = ld, .scale = scale, .out = (float *)out,
                        .stats = (float *)stats, .g = g, .g_ld = g_ld, .dq = dq, .dk = dk, .dv = dv, .d_ld = d_ld};
  const int64_t keys = most_kept(&p) + 3, turned = K * BLOCK_VECTORS, queries = BLOCK_VECTORS * MOST_LANES;
  float *space = vectors(2 * turned + 2 * keys * BLOCK_VECTORS + 2 * (queries + keys) * blocks_of(K)), *next = space;
  if (!space) return 1;
  const struct { float **to; int64_t count; } parts[] = {
      {&p.turned_q, turned}, {&p.turned_g, turned}, {&p.weights, keys * BLOCK_VECTORS}, {&p.slopes, keys * BLOCK_VECTORS},
      {&p.rows_q, queries * blocks_of(K)}, {&p.rows_g, queries * blocks_of(K)}, {&p.sum_dk, keys * blocks_of(K)},
      {&p.sum_dv, keys * blocks_of(K)}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    *parts[i].to = next;
    next += parts[i].count * MOST_LANES;
  }
  /* Columns of the padding stay 0. */
  memset(p.rows_q, 0, (size_t)(2 * queries * blocks_of(K) * MOST_LANES) * sizeof(float));
  CALL(attention_backward, &p);
  free(space);
  return 0;
}
