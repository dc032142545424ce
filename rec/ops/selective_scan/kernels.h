/* Selective scan over jagged rows, forward and backward; equations and layout are in README.md.
 *
 * E channels, S states; LANES channels are one vector, and a block of work. Included once for each instruction set
 * (rec/ops/native/native.c). Where S is a constant the loops over states are unrolled: for the usual 16, a fifth
 * less time backwards.
 */

/* One block of channels of one row: states from h on, outputs into y. */
INLINE void FN(scan_steps)(const struct scan *p, int64_t from, int64_t to, int64_t block, V *h, float *y,
                           const int S) {
  const int64_t e = block * LANES;
  const int lanes = LANES_AT(p->E, e);
  const V *A = (const V *)p->A2 + block * S;
  const V D = FN(load)(p->D + e, lanes);
  for (int64_t n = from; n < to; n++) {
    const V u = FN(load)(p->u + n * p->u_ld + e, lanes), dt = FN(load)(p->dt + n * p->dt_ld + e, lanes);
    const float *B = p->B + n * p->B_ld, *C = p->C + n * p->C_ld;
    const V du = dt * u;
    V out = D * u;
    for (int s = 0; s < S; s++) {
      h[s] = FN(exp2)(dt * A[s]) * h[s] + du * B[s];
      out += h[s] * C[s];
    }
    if (y) FN(store)(y + n * p->E + e, out, lanes);
  }
}

INLINE void FN(scan_forward_rows)(const struct scan *p, const int S) {
  const int64_t blocks = (p->E + LANES - 1) / LANES;
  for (int64_t row = p->first; row < p->last; row++)
    for (int64_t block = 0; block < blocks; block++) {
      const int64_t e = block * LANES;
      const int lanes = LANES_AT(p->E, e);
      V h[MAX_STATES];
      for (int s = 0; s < S; s++) h[s] = p->h0 ? FN(gather)(p->h0 + (row * p->E + e) * S + s, S, lanes) : (V){0};
      FN(scan_steps)(p, p->offsets[row], p->offsets[row + 1], block, h, p->y, S);
      if (p->h1)
        for (int s = 0; s < S; s++) FN(scatter)(p->h1 + (row * p->E + e) * S + s, h[s], S, lanes);
    }
}

/* One block of channels of at most CHUNK steps backwards. */
INLINE void FN(scan_chunk_backward)(const struct scan *p, int64_t from, int64_t to, int64_t block, const V *h0,
                                    V *carry, const int S) {
  const int64_t e = block * LANES;
  const int lanes = LANES_AT(p->E, e);
  const V *A = (const V *)p->A2 + block * S;
  const V D = FN(load)(p->D + e, lanes);
  V *dA = (V *)p->dA2 + block * S;
  V *h = (V *)p->states, *decay = (V *)p->decays;
  for (int s = 0; s < S; s++) h[s] = h0[s];
  for (int64_t n = from; n < to; n++) {
    const V u = FN(load)(p->u + n * p->u_ld + e, lanes), dt = FN(load)(p->dt + n * p->dt_ld + e, lanes);
    const float *B = p->B + n * p->B_ld;
    const V du = dt * u;
    for (int s = 0; s < S; s++) {
      decay[s] = FN(exp2)(dt * A[s]);
      h[S + s] = decay[s] * h[s] + du * B[s];
    }
    h += S;
    decay += S;
  }
  V dD = {0};
  for (int64_t n = to - 1; n >= from; n--) {
    h -= S;
    decay -= S;
    const V u = FN(load)(p->u + n * p->u_ld + e, lanes), dt = FN(load)(p->dt + n * p->dt_ld + e, lanes);
    const V gy = FN(load)(p->gy + n * p->gy_ld + e, lanes);
    const float *B = p->B + n * p->B_ld, *C = p->C + n * p->C_ld;
    V *sumB = (V *)p->sumB + (n - from) * S, *sumC = (V *)p->sumC + (n - from) * S;
    const V du = dt * u;
    V through_B = {0}, through_A = {0};
    for (int s = 0; s < S; s++) {
      const V gh = carry[s] + gy * C[s];
      sumC[s] += gy * h[S + s];
      sumB[s] += gh * du;
      through_B += gh * B[s];
      carry[s] = gh * decay[s];
      const V ga = carry[s] * h[s];
      through_A += ga * A[s];
      dA[s] += ga * dt;
    }
    dD += gy * u;
    FN(store)(p->du + n * p->E + e, D * gy + dt * through_B, lanes);
    FN(store)(p->ddt + n * p->E + e, u * through_B + LN2 * through_A, lanes);
  }
  ((V *)p->dD2)[block] += dD;
}

INLINE void FN(scan_backward_rows)(const struct scan *p, const int S) {
  const int64_t blocks = (p->E + LANES - 1) / LANES, width = blocks * S;
  V *starts = (V *)p->starts, *carry = (V *)p->carry, *sumB = (V *)p->sumB, *sumC = (V *)p->sumC;
  for (int64_t row = p->first; row < p->last; row++) {
    const int64_t begin = p->offsets[row], end = p->offsets[row + 1];
    if (begin == end) continue;
    const int64_t chunks = (end - begin + CHUNK - 1) / CHUNK;
    /* The states that the chunks start from. */
    for (int64_t block = 0; block < blocks; block++) {
      V h[MAX_STATES];
      for (int s = 0; s < S; s++) h[s] = (V){0};
      for (int64_t c = 0; c < chunks; c++) {
        for (int s = 0; s < S; s++) starts[c * width + block * S + s] = h[s];
        const int64_t from = begin + c * CHUNK;
        if (c < chunks - 1) FN(scan_steps)(p, from, from + CHUNK, block, h, 0, S);
      }
    }
    for (int64_t i = 0; i < width; i++) carry[i] = (V){0};
    for (int64_t c = chunks - 1; c >= 0; c--) {
      const int64_t from = begin + c * CHUNK, to = from + CHUNK < end ? from + CHUNK : end;
      for (int64_t i = 0; i < (to - from) * S; i++) sumB[i] = sumC[i] = (V){0};
      for (int64_t block = 0; block < blocks; block++)
        FN(scan_chunk_backward)(p, from, to, block, starts + c * width + block * S, carry + block * S, S);
      for (int64_t n = from; n < to; n++)
        for (int s = 0; s < S; s++) {
          p->dB[n * S + s] = FN(sum)(sumB[(n - from) * S + s]);
          p->dC[n * S + s] = FN(sum)(sumC[(n - from) * S + s]);
        }
    }
  }
}

/* [E, S] to [blocks, S] vectors, times a factor; channels that fill up the last block are 0. */
static void FN(pack)(const float *x, float *out, int64_t E, int64_t S, float factor) {
  V *to = (V *)out;
  for (int64_t e = 0; e < E; e += LANES)
    for (int64_t s = 0; s < S; s++) *to++ = FN(gather)(x + e * S + s, S, LANES_AT(E, e)) * factor;
}

static void FN(unpack)(const float *packed, float *out, int64_t E, int64_t S) {
  const V *from = (const V *)packed;
  for (int64_t e = 0; e < E; e += LANES)
    for (int64_t s = 0; s < S; s++) FN(scatter)(out + e * S + s, *from++, S, LANES_AT(E, e));
}

static void FN(scan_forward)(const struct scan *p) {
  FN(pack)(p->A, p->A2, p->E, p->S, LOG2E);
  if (p->S == 16)
    FN(scan_forward_rows)(p, 16);
  else
    FN(scan_forward_rows)(p, (int)p->S);
}

static void FN(scan_backward)(const struct scan *p) {
  FN(pack)(p->A, p->A2, p->E, p->S, LOG2E);
  if (p->S == 16)
    FN(scan_backward_rows)(p, 16);
  else
    FN(scan_backward_rows)(p, (int)p->S);
  FN(unpack)(p->dA2, p->dA, p->E, p->S);
  FN(unpack)(p->dD2, p->dD, p->E, 1);
}
