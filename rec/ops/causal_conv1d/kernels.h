/* SiLU of a causal depthwise convolution over jagged rows, forward and backward, in one pass each over a row.
 *
 * E channels, K taps; y[n] = SiLU(b + sum over j of w[j] x[n - (K - 1) + j]), steps before the row's first being 0.
 * Included once for each instruction set (rec/ops/native/native.c).
 */

/* The last K - 1 steps and the new one. */
INLINE void FN(push)(V *window, V x, const int K) {
  for (int j = 0; j + 1 < K; j++) window[j] = window[j + 1];
  window[K - 1] = x;
}

INLINE V FN(conv_at)(const V *w, const V *window, V bias, const int K) {
  V sum = bias;
  for (int j = 0; j < K; j++) sum += w[j] * window[j];
  return sum;
}

INLINE void FN(conv_forward_rows)(const struct conv *p, const int K) {
  for (int64_t e = 0; e < p->E; e += LANES) {
    const int lanes = LANES_AT(p->E, e);
    const V bias = p->b ? FN(load)(p->b + e, lanes) : (V){0};
    V w[MAX_TAPS], window[MAX_TAPS];
    for (int j = 0; j < K; j++) w[j] = FN(gather)(p->w + e * K + j, K, lanes);
    for (int64_t row = p->first; row < p->last; row++) {
      for (int j = 0; j < K; j++) window[j] = (V){0};
      for (int64_t n = p->offsets[row]; n < p->offsets[row + 1]; n++) {
        FN(push)(window, FN(load)(p->x + n * p->x_ld + e, lanes), K);
        const V sum = FN(conv_at)(w, window, bias, K);
        FN(store)(p->y + n * p->E + e, sum * FN(sigmoid)(sum), lanes);
      }
    }
  }
}

INLINE void FN(conv_backward_rows)(const struct conv *p, const int K) {
  for (int64_t e = 0; e < p->E; e += LANES) {
    const int lanes = LANES_AT(p->E, e);
    const V bias = p->b ? FN(load)(p->b + e, lanes) : (V){0};
    V w[MAX_TAPS], window[MAX_TAPS], gradient[MAX_TAPS], dw[MAX_TAPS], db = {0};
    for (int j = 0; j < K; j++) {
      w[j] = FN(gather)(p->w + e * K + j, K, lanes);
      dw[j] = (V){0};
    }
    for (int64_t row = p->first; row < p->last; row++) {
      const int64_t begin = p->offsets[row], end = p->offsets[row + 1];
      for (int j = 0; j < K; j++) window[j] = gradient[j] = (V){0};
      /* Step n - (K - 1) has met its last reader at n. */
      for (int64_t n = begin; n < end + K - 1; n++) {
        V g = {0};
        if (n < end) {
          FN(push)(window, FN(load)(p->x + n * p->x_ld + e, lanes), K);
          const V sum = FN(conv_at)(w, window, bias, K), s = FN(sigmoid)(sum);
          g = FN(load)(p->gy + n * p->gy_ld + e, lanes) * s * (1.0f + sum * (1.0f - s));
          for (int j = 0; j < K; j++) dw[j] += g * window[j];
          db += g;
        }
        FN(push)(gradient, g, K);
        if (n - (K - 1) >= begin) {
          V dx = {0};
          for (int j = 0; j < K; j++) dx += w[j] * gradient[K - 1 - j];
          FN(store)(p->dx + (n - (K - 1)) * p->E + e, dx, lanes);
        }
      }
    }
    for (int j = 0; j < K; j++) FN(scatter)(p->dw + e * K + j, dw[j], K, lanes);
    FN(store)(p->db + e, db, lanes);
  }
}

static void FN(conv_forward)(const struct conv *p) {
  if (p->K == 4)
    FN(conv_forward_rows)(p, 4);
  else
    FN(conv_forward_rows)(p, (int)p->K);
}

static void FN(conv_backward)(const struct conv *p) {
  if (p->K == 4)
    FN(conv_backward_rows)(p, 4);
  else
    FN(conv_backward_rows)(p, (int)p->K);
}
