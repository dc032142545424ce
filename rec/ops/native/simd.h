/* Vectors of one register in GCC's portable form. LANES says how wide, FN(name) gives names of their own.
 *
 * Included once for each instruction set (native.c). Not vectors of 16 floats for all: GCC 12 keeps those that take
 * several registers in memory, which took seven times as long.
 */

#define V FN(vector)
#define I FN(integers)
typedef float V __attribute__((vector_size(LANES * 4)));
typedef int32_t I __attribute__((vector_size(LANES * 4)));
/* A whole vector at any float's address. */
typedef float FN(loose) __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

/* Channels of the block that starts at `at`. */
#define LANES_AT(width, at) ((width) - (at) < LANES ? (int)((width) - (at)) : LANES)

INLINE V FN(gather)(const float *p, int64_t stride, int lanes) {
  V v = {0};
  for (int i = 0; i < lanes; i++) v[i] = p[i * stride];
  return v;
}

INLINE void FN(scatter)(float *p, V v, int64_t stride, int lanes) {
  for (int i = 0; i < lanes; i++) p[i * stride] = v[i];
}

INLINE V FN(load)(const float *p, int lanes) {
  if (__builtin_expect(lanes == LANES, 1)) return (V) * (const FN(loose) *)p;
  return FN(gather)(p, 1, lanes);
}

INLINE void FN(store)(float *p, V v, int lanes) {
  if (__builtin_expect(lanes == LANES, 1))
    *(FN(loose) *)p = (FN(loose))v;
  else
    FN(scatter)(p, v, 1, lanes);
}

INLINE float FN(sum)(V v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}

/* 2^x: n = round(x), 2^(x - n) by a minimax polynomial of degree 6 (relative error 1.9e-9), n into the exponent.
 * Below -126 it gives 0 (no denormals), from 128 on infinity; a not-a-number stays one. `outside` gives 0. */
INLINE V FN(exp2_in_range)(V x, I outside) {
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, in the low bits */
  const V shifted = x + magic;
  const V f = x - (shifted - magic);
  V p = f * 0.00015345812f + 0.0013399931f;
  p = p * f + 0.009618489f;
  p = p * f + 0.055503288f;
  p = p * f + 0.24022647f;
  p = p * f + 0.6931472f;
  p = p * f + 1.0f;
  return (V)(((I)p + ((I)shifted << 23)) & ~outside);
}

INLINE V FN(exp2)(V x) {
  const I small = x < -126.0f, large = x >= 128.0f; /* all ones where it holds */
  return (V)((I)FN(exp2_in_range)(x, small | large) | (large & 0x7f800000));
}

/* The same for what is not above 0. */
INLINE V FN(exp2_falling)(V x) { return FN(exp2_in_range)(x, x < -126.0f); }

INLINE V FN(sigmoid)(V x) { return 1.0f / (1.0f + FN(exp2)(x * -LOG2E)); }

static void FN(powers_of_two)(const struct powers *p) {
  for (int64_t i = 0; i < p->count; i += LANES) {
    const int lanes = LANES_AT(p->count, i);
    FN(store)(p->y + i, FN(exp2)(FN(load)(p->x + i, lanes)), lanes);
  }
}
