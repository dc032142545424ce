/* Softmax attention within jagged rows, forward and backward; equations and layout are in README.md.
 *
 * H heads of K columns. A block of QUERIES queries of one row and head is worked on at once, a query to a lane: scores,
 * softmax and outputs are then elementwise, with numbers of the keys as scalars. Included once for each instruction set
 * (rec/ops/native/native.c).
 */

#define QUERIES (BLOCK_VECTORS * LANES)
#define PADDED(K) (((K) + LANES - 1) / LANES * LANES)
/* Unrolled, so that the vectors of a block stay in registers. */
#define EACH_VECTOR(b) _Pragma("GCC unroll 4") for (int b = 0; b < BLOCK_VECTORS; b++)

INLINE V FN(larger)(V a, V b) {
  const I where = a > b;
  return (V)((where & (I)a) | (~where & (I)b));
}

/* x where the query (first + lane) is not before key j, else `other`. */
INLINE V FN(seen)(V x, int64_t first, int64_t j, float other) {
  I lane;
  for (int i = 0; i < LANES; i++) lane[i] = i;
  const I hidden = lane < (int32_t)(j - first);
  const V instead = (V){0} + other;
  return (V)((~hidden & (I)x) | (hidden & (I)instead));
}

/* A vector at once: the compiler must assume that `to` and `from` overlap, and would go by single numbers. */
INLINE void FN(copy)(float *to, const float *from, const int K) {
  for (int d = 0; d < K; d += LANES) FN(store)(to + d, FN(load)(from + d, LANES_AT(K, d)), LANES_AT(K, d));
}

INLINE float FN(dot)(const float *a, const float *b, const int K) {
  V sum = {0};
  for (int d = 0; d < K; d += LANES) sum += FN(load)(a + d, LANES_AT(K, d)) * FN(load)(b + d, LANES_AT(K, d));
  return FN(sum)(sum);
}

/* Columns of `count` rows turned: to[d][i] = factor * from[i][d]; 0 for lanes without a row. */
INLINE void FN(turn)(float *to, const float *from, int64_t ld, int64_t count, float factor, const int K) {
  for (int64_t i = 0; i < count; i++)
    for (int d = 0; d < K; d++) to[d * QUERIES + i] = factor * from[i * ld + d];
  for (int d = 0; d < K; d++)
    for (int64_t i = count; i < QUERIES; i++) to[d * QUERIES + i] = 0;
}

/* to[j][b] = sum over d of x[j][d] turned[d][b], for two rows x: each column that is loaded serves both. */
INLINE void FN(products)(float *to, const float *x, int64_t ld, int64_t rows, const float *turned, const int K) {
  for (int64_t j = 0; j < rows; j += 2) {
    const float *x0 = x + j * ld, *x1 = j + 1 < rows ? x0 + ld : x0;
    V sums0[BLOCK_VECTORS], sums1[BLOCK_VECTORS];
    EACH_VECTOR(b) sums0[b] = sums1[b] = (V){0};
    for (int d = 0; d < K; d++) {
      const V *column = (const V *)(turned + d * QUERIES);
      EACH_VECTOR(b) {
        sums0[b] += x0[d] * column[b];
        sums1[b] += x1[d] * column[b];
      }
    }
    V *row = (V *)(to + j * QUERIES);
    EACH_VECTOR(b) {
      row[b] = sums0[b];
      row[BLOCK_VECTORS + b] = sums1[b];
    }
  }
}

/* to[i][d] = factor[i] * sum over j of weights[j][i] x[j][d], two columns at once. */
INLINE void FN(mix)(float *to, int64_t to_ld, const float *weights, const float *x, int64_t ld, int64_t keys,
                    int64_t count, const V *factor, const int K) {
  for (int d = 0; d < K; d += 2) {
    const int next = d + 1 < K;
    V sums0[BLOCK_VECTORS], sums1[BLOCK_VECTORS];
    EACH_VECTOR(b) sums0[b] = sums1[b] = (V){0};
    for (int64_t j = 0; j < keys; j++) {
      const V *row = (const V *)(weights + j * QUERIES);
      const float x0 = x[j * ld + d], x1 = x[j * ld + d + next];
      EACH_VECTOR(b) {
        sums0[b] += x0 * row[b];
        sums1[b] += x1 * row[b];
      }
    }
    for (int b = 0; b < BLOCK_VECTORS && b * LANES < count; b++) {
      float *start = to + b * LANES * to_ld + d;
      FN(scatter)(start, sums0[b] * factor[b], to_ld, LANES_AT(count, b * LANES));
      if (next) FN(scatter)(start + 1, sums1[b] * factor[b], to_ld, LANES_AT(count, b * LANES));
    }
  }
}

INLINE void FN(attention_forward_rows)(const struct attention *p, const int K) {
  const int64_t A = p->H * K;
  for (int64_t row = p->first; row < p->last; row++) {
    const int64_t begin = p->offsets[row], kept = p->kept[row];
    for (int64_t h = 0; h < p->H; h++) {
      const float *q = p->q + begin * p->ld + h * K, *k = p->k + begin * p->ld + h * K,
                  *v = p->v + begin * p->ld + h * K;
      for (int64_t at = 0; at < kept; at += QUERIES) {
        const int64_t count = kept - at < QUERIES ? kept - at : QUERIES, keys = p->causal ? at + count : kept;
        FN(turn)(p->turned_q, q + at * p->ld, p->ld, count, p->scale * LOG2E, K);
        V largest[BLOCK_VECTORS], total[BLOCK_VECTORS];
        EACH_VECTOR(b) largest[b] = (V){0} + LOWEST;
        FN(products)(p->weights, k, p->ld, keys, p->turned_q, K);
        for (int64_t j = 0; j < keys; j++) {
          V *score = (V *)(p->weights + j * QUERIES);
          EACH_VECTOR(b) {
            if (p->causal && j > at + b * LANES) score[b] = FN(seen)(score[b], at + b * LANES, j, LOWEST);
            largest[b] = FN(larger)(largest[b], score[b]);
          }
        }
        EACH_VECTOR(b) total[b] = (V){0};
        for (int64_t j = 0; j < keys; j++) {
          V *weight = (V *)(p->weights + j * QUERIES);
          EACH_VECTOR(b) {
            weight[b] = FN(exp2_falling)(weight[b] - largest[b]);
            total[b] += weight[b];
          }
        }
        EACH_VECTOR(b) total[b] = 1.0f / total[b];
        FN(mix)(p->out + (begin + at) * A + h * K, A, p->weights, v, p->ld, keys, count, total, K);
        if (!p->stats) continue;
        for (int b = 0; b < BLOCK_VECTORS && b * LANES < count; b++) {
          float *stats = p->stats + ((begin + at + b * LANES) * p->H + h) * 2;
          FN(scatter)(stats, largest[b], 2 * p->H, LANES_AT(count, b * LANES));
          FN(scatter)(stats + 1, total[b], 2 * p->H, LANES_AT(count, b * LANES));
        }
      }
    }
    for (int64_t n = begin + kept; n < p->offsets[row + 1]; n++) memset(p->out + n * A, 0, (size_t)A * sizeof(float));
  }
}

/* dk[j] += sum over i of slopes[j][i] q[i], dv[j] += sum over i of weights[j][i] g[i]: a column to a lane. */
INLINE void FN(add_to_keys)(const struct attention *p, int64_t keys, int64_t count, const int K) {
  const int64_t width = PADDED(K);
  for (int64_t column = 0; column < width; column += LANES)
    for (int64_t j = 0; j < keys; j += 4) {
      V dk[4], dv[4];
      _Pragma("GCC unroll 4") for (int u = 0; u < 4; u++) {
        dk[u] = *(const V *)(p->sum_dk + (j + u) * width + column);
        dv[u] = *(const V *)(p->sum_dv + (j + u) * width + column);
      }
      const float *slopes = p->slopes + j * QUERIES, *weights = p->weights + j * QUERIES;
      for (int64_t i = 0; i < count; i++) {
        const V q = *(const V *)(p->rows_q + i * width + column), g = *(const V *)(p->rows_g + i * width + column);
        _Pragma("GCC unroll 4") for (int u = 0; u < 4; u++) {
          dk[u] += slopes[u * QUERIES + i] * q;
          dv[u] += weights[u * QUERIES + i] * g;
        }
      }
      _Pragma("GCC unroll 4") for (int u = 0; u < 4; u++) {
        *(V *)(p->sum_dk + (j + u) * width + column) = dk[u];
        *(V *)(p->sum_dv + (j + u) * width + column) = dv[u];
      }
    }
}

INLINE void FN(attention_backward_rows)(const struct attention *p, const int K) {
  const int64_t A = p->H * K, width = PADDED(K);
  for (int64_t row = p->first; row < p->last; row++) {
    const int64_t begin = p->offsets[row], kept = p->kept[row];
    for (int64_t h = 0; h < p->H; h++) {
      const float *q = p->q + begin * p->ld + h * K, *k = p->k + begin * p->ld + h * K,
                  *v = p->v + begin * p->ld + h * K, *g = p->g + begin * p->g_ld + h * K;
      const int64_t to = begin * p->d_ld + h * K;
      memset(p->sum_dk, 0, (size_t)((kept + 3) * width) * sizeof(float));
      memset(p->sum_dv, 0, (size_t)((kept + 3) * width) * sizeof(float));
      for (int64_t at = 0; at < kept; at += QUERIES) {
        const int64_t count = kept - at < QUERIES ? kept - at : QUERIES, keys = p->causal ? at + count : kept;
        FN(turn)(p->turned_q, q + at * p->ld, p->ld, count, p->scale * LOG2E, K);
        FN(turn)(p->turned_g, g + at * p->g_ld, p->g_ld, count, 1.0f, K);
        V largest[BLOCK_VECTORS], total[BLOCK_VECTORS], mean[BLOCK_VECTORS], ones[BLOCK_VECTORS];
        EACH_VECTOR(b) {
          largest[b] = total[b] = mean[b] = (V){0};
          ones[b] = (V){0} + 1.0f;
          for (int i = 0; i < LANES && b * LANES + i < count; i++) {
            const int64_t n = begin + at + b * LANES + i;
            const float *stats = p->stats + (n * p->H + h) * 2;
            largest[b][i] = stats[0];
            total[b][i] = stats[1];
            mean[b][i] = FN(dot)(p->g + n * p->g_ld + h * K, p->out + n * A + h * K, K);
          }
        }
        for (int64_t i = 0; i < count; i++) {
          FN(copy)(p->rows_q + i * width, q + (at + i) * p->ld, K);
          FN(copy)(p->rows_g + i * width, g + (at + i) * p->g_ld, K);
        }
        FN(products)(p->weights, k, p->ld, keys, p->turned_q, K);
        FN(products)(p->slopes, v, p->ld, keys, p->turned_g, K);
        for (int64_t j = 0; j < keys; j++) {
          V *weight = (V *)(p->weights + j * QUERIES), *slope = (V *)(p->slopes + j * QUERIES);
          EACH_VECTOR(b) {
            weight[b] = FN(exp2_falling)(weight[b] - largest[b]) * total[b];
            if (p->causal && j > at + b * LANES) weight[b] = FN(seen)(weight[b], at + b * LANES, j, 0.0f);
            slope[b] = weight[b] * (slope[b] - mean[b]) * p->scale;
          }
        }
        memset(p->weights + keys * QUERIES, 0, 3 * QUERIES * sizeof(float));
        memset(p->slopes + keys * QUERIES, 0, 3 * QUERIES * sizeof(float));
        FN(mix)(p->dq + to + at * p->d_ld, p->d_ld, p->slopes, k, p->ld, keys, count, ones, K);
        FN(add_to_keys)(p, keys, count, K);
      }
      for (int64_t j = 0; j < kept; j++) {
        FN(copy)(p->dk + to + j * p->d_ld, p->sum_dk + j * width, K);
        FN(copy)(p->dv + to + j * p->d_ld, p->sum_dv + j * width, K);
      }
    }
    for (int64_t n = begin + kept; n < p->offsets[row + 1]; n++) {
      memset(p->dq + n * p->d_ld, 0, (size_t)A * sizeof(float));
      memset(p->dk + n * p->d_ld, 0, (size_t)A * sizeof(float));
      memset(p->dv + n * p->d_ld, 0, (size_t)A * sizeof(float));
    }
  }
}

/* Where K is a constant the loops over columns are unrolled. */
#define BY_WIDTH(function)                        \
  switch (p->K) {                                 \
    case 8: function(p, 8); break;                \
    case 16: function(p, 16); break;              \
    case 32: function(p, 32); break;              \
    default: function(p, (int)p->K);              \
  }

static void FN(attention_forward)(const struct attention *p) { BY_WIDTH(FN(attention_forward_rows)) }

static void FN(attention_backward)(const struct attention *p) { BY_WIDTH(FN(attention_backward_rows)) }

#undef BY_WIDTH
#undef PADDED
#undef EACH_VECTOR
#undef QUERIES
