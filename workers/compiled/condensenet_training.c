/* Trains a CondenseNet's dense layers on a CPU, in fp32: from the stem's output to the pooled features, and back.
 *
 *     training *t = training_open(&network, capacity, threads, recompute);    // NULL: no memory
 *     training_forward(t, thread, x, features, images, learning);             // every thread calls with its own number
 *     training_backward(t, thread, d_features, d_x);                          // ... of the batch that went forward
 *     training_abandon(t);                                                    // a thread won't call: let others go
 *     training_close(t);
 *
 * Build: cc -O3 -march=native -shared -fPIC condensenet_training.c (tried: gcc 12; x86-64 with AVX-512 and AVX2).
 *
 * Notable choices:
 * - A channel is one row of floats: all positions of all images of the batch, one image after another. So a layer's
 *   input is a prefix of the stage's rows, its output is the rows behind them, and nothing is concatenated. Each thread
 *   has rows of its own for its share of the images; what they must know of each other is sums for every channel.
 * - Batch statistics of a feature are computed once, when it is made: every layer that reads it sees the same. For the
 *   same reason the gradient of the normalisation is computed once for each feature, from what all its readers said.
 * - Batch norm, ReLU and convolution run tile by tile, so that what lies between them stays in the cache. Backwards it
 *   is computed again from the rows instead of being kept.
 * - A column that a group dropped is not read, multiplied or given a gradient: condensing makes the training faster.
 * - All products are one of two: `mix`, rows out of rows, and `dots`, weights out of rows. A 3x3 convolution mixes nine
 *   shifted views of each row of a small plane with zeros between its images.
 * - Sums for statistics are floats over a tile and doubles beyond. The order depends on the number of threads alone, so
 *   a training repeats bit by bit.
 */

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#if defined(__AVX512F__)
#include <immintrin.h>
enum { LANES = 16, WIDE = 8 };
#elif defined(__AVX2__)
enum { LANES = 8, WIDE = 4 };
#else
enum { LANES = 4, WIDE = 8 };
#endif
enum { UNIT = 6 * LANES, SMALL_PLANE = 512, TILE_FLOATS = 160 * 1024, WORDS = 4 };

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
INLINE vec load(const float *from) { return *(const loose *)from; }
INLINE void store(float *to, vec x) { *(loose *)to = x; }
INLINE vec filled(float x) { return x - (vec){0}; }
/* max(x, 0), where NaN stays NaN; y where x is positive and else 0 */
#if defined(__AVX512F__)
INLINE vec positive(vec x) { return (vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x); }
INLINE vec where_positive(vec x, vec y) {
    return (vec)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_GT_OQ), (__m512)y);
}
#else
typedef int32_t flags __attribute__((vector_size(LANES * 4)));
INLINE vec positive(vec x) { return (vec)(~(flags)((vec){0} > x) & (flags)x); }
INLINE vec where_positive(vec x, vec y) { return (vec)((flags)(x > (vec){0}) & (flags)y); }
#endif
INLINE float total(vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    UNROLL for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
#endif
}
static long up(long n, long unit) { return (n + unit - 1) / unit * unit; }

/* ---- what the caller describes --------------------------------------------------------------------------- */

typedef struct {
    int32_t channels, unused;
    const float *weight, *bias;
    float *mean, *variance; /* running */
    int64_t d_weight, d_bias; /* where their gradients begin, in floats */
} norm;

typedef struct {
    int32_t stage, in, mid, growth, groups, groups_3x3, kept, unused;
    const int32_t *columns; /* (groups, kept), ascending; group g makes the outputs g, g + groups, ... */
    const float *weight_1x1, *weight_3x3; /* (mid, in), (growth, mid / groups_3x3, 3, 3) */
    int64_t d_weight_1x1, d_weight_3x3;
    norm before, between;
} layer;

typedef struct {
    int32_t layers, stages, stem, features, height, width;
    float momentum, epsilon;
    const layer *layer;
    norm last;
    float *gradients; /* the first thread's; the others' follow */
    int64_t gradient_floats;
} network;

typedef struct {
    int height, width, pixels, channels, first; /* first: channels that don't come from its own layers */
    long row; /* floats between two channels' rows */
    size_t mean; /* where this stage's statistics begin */
} stage;

typedef struct {
    float **x, **y; /* rows of each stage's features; of each layer's 1x1 outputs */
    float *d, *e, *pooled[2]; /* gradients: of normalised features, after the 3x3's input norm, from the next stage */
    float *a, *da, *dy, *z, *dx, *dz, *line, *packed;
    const float **from;
    float **to;
    float *mean, *inverse; /* batch statistics, of features by stage and then of each layer's 1x1 outputs */
    float *scale, *shift;
    double *d_mean, *d_spread; /* of the stage's features, summed over their readers, divided by the positions */
    int first_image, images;
    unsigned turn;
} worker;

typedef struct {
    network net;
    stage *stages;
    size_t *y_mean;
    int threads, capacity, recompute, images, tile_rows;
    size_t statistics;
    double *sums; /* [thread][statistic][2] */
    worker *workers;
    atomic_uint arrived, turn, abandoned;
} training;

static void meet(training *t, worker *w) { /* wait until every thread has come as far */
    if (t->threads == 1) return;
    unsigned turn = w->turn++;
    if (atomic_fetch_add(&t->arrived, 1) + 1 == (unsigned)t->threads) {
        atomic_store(&t->arrived, 0);
        atomic_store(&t->turn, turn + 1);
        return;
    }
    for (int spins = 0; atomic_load(&t->turn) == turn && !atomic_load(&t->abandoned); spins++)
        if (spins > 2000) sched_yield();
}

/* ---- products -------------------------------------------------------------------------------------------- */

#define MIX(OUT, VECS)                                                                                         \
    static void mix_##OUT(float *const *to, const float *const *from, const float *weight, int n, long floats, \
                          int add) {                                                                           \
        for (long p = 0; p < floats; p += VECS * LANES) {                                                      \
            vec sum[OUT][VECS];                                                                                \
            UNROLL for (int o = 0; o < OUT; o++) UNROLL for (int v = 0; v < VECS; v++)                         \
                sum[o][v] = add ? load(to[o] + p + v * LANES) : (vec){0};                                      \
            for (int k = 0; k < n; k++) {                                                                      \
                vec x[VECS];                                                                                   \
                UNROLL for (int v = 0; v < VECS; v++) x[v] = load(from[k] + p + v * LANES);                    \
                UNROLL for (int o = 0; o < OUT; o++) {                                                         \
                    vec factor = filled(weight[k * OUT + o]);                                                     \
                    UNROLL for (int v = 0; v < VECS; v++) sum[o][v] += factor * x[v];                          \
                }                                                                                              \
            }                                                                                                  \
            UNROLL for (int o = 0; o < OUT; o++) UNROLL for (int v = 0; v < VECS; v++)                         \
                store(to[o] + p + v * LANES, sum[o][v]);                                                       \
        }                                                                                                      \
    }
#if defined(__AVX512F__) || !defined(__AVX2__)
MIX(8, 3)
MIX(4, 6)
#else
MIX(4, 3)
#endif
MIX(2, 6)
MIX(1, 6)

/* to[o] (+)= sum over k of weight(o, k) from[k]; the weights packed by `pack` for the same o; floats: whole UNITs */
static void mix(float *const *to, int outputs, const float *const *from, int n, const float *packed, long floats,
                int add) {
    int o = 0;
#if defined(__AVX512F__) || !defined(__AVX2__)
    for (; outputs - o >= 8; o += 8) mix_8(to + o, from, packed + (size_t)o * n, n, floats, add);
#endif
    for (; outputs - o >= 4; o += 4) mix_4(to + o, from, packed + (size_t)o * n, n, floats, add);
    for (; outputs - o >= 2; o += 2) mix_2(to + o, from, packed + (size_t)o * n, n, floats, add);
    for (; outputs - o >= 1; o += 1) mix_1(to + o, from, packed + (size_t)o * n, n, floats, add);
}

INLINE int block_of(int left) { return left >= WIDE ? WIDE : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

#define DOTS(OUT, IN)                                                                                            \
    static void dots_##OUT##_##IN(float *sum, long stride, const float *const *out, const float *const *in, long n) { \
        vec acc[OUT][IN];                                                                                        \
        UNROLL for (int o = 0; o < OUT; o++) UNROLL for (int k = 0; k < IN; k++) acc[o][k] = (vec){0};           \
        for (long p = 0; p < n; p += LANES) {                                                                    \
            vec x[OUT];                                                                                          \
            UNROLL for (int o = 0; o < OUT; o++) x[o] = load(out[o] + p);                                        \
            UNROLL for (int k = 0; k < IN; k++) {                                                                \
                vec y = load(in[k] + p);                                                                         \
                UNROLL for (int o = 0; o < OUT; o++) acc[o][k] += x[o] * y;                                      \
            }                                                                                                    \
        }                                                                                                        \
        UNROLL for (int o = 0; o < OUT; o++) UNROLL for (int k = 0; k < IN; k++)                                 \
            sum[o * stride + k] += total(acc[o][k]);                                                             \
    }
#if defined(__AVX2__) && !defined(__AVX512F__)
DOTS(4, 2)
DOTS(4, 1)
DOTS(2, 4)
DOTS(2, 1)
DOTS(1, 6)
DOTS(1, 1)
#define EACH_4(run) run(4, 2) run(4, 1)
#define EACH_2(run) run(2, 4) run(2, 1)
#define EACH_1(run) run(1, 6) run(1, 1)
#else
DOTS(4, 6)
DOTS(4, 2)
DOTS(4, 1)
DOTS(2, 9)
DOTS(2, 2)
DOTS(2, 1)
DOTS(1, 9)
DOTS(1, 1)
#define EACH_4(run) run(4, 6) run(4, 2) run(4, 1)
#define EACH_2(run) run(2, 9) run(2, 2) run(2, 1)
#define EACH_1(run) run(1, 9) run(1, 1)
#endif

/* sum[o * stride + k] += the dot product of out[o] and in[k], over whole vectors */
static void dots(float *sum, long stride, const float *const *out, int outputs, const float *const *in, int n,
                 long floats) {
#define RUN(OUT, IN) \
    for (; n - k >= IN; k += IN) dots_##OUT##_##IN(sum + o * stride + k, stride, out + o, in + k, floats);
    int o = 0, k;
    for (; outputs - o >= 4; o += 4) { k = 0; EACH_4(RUN) }
    for (; outputs - o >= 2; o += 2) { k = 0; EACH_2(RUN) }
    for (; outputs - o >= 1; o += 1) { k = 0; EACH_1(RUN) }
}

/* ---- statistics ------------------------------------------------------------------------------------------ */

static double *sums_of(training *t, int thread, size_t statistic) {
    return t->sums + 2 * ((size_t)thread * t->statistics + statistic);
}

/* The sum and the sum of squares of n floats. Floats hold differences to the first one, so that a channel whose values
 * lie close together far from zero keeps its variance. */
static void add_row(double *sums, const float *x, long n) {
    float pivot = n ? x[0] : 0;
    double sum = 0, squares = 0;
    for (long p = 0; p < n;) {
        long end = p + 64 * LANES < n ? p + 64 * LANES : n;
        vec s = {0}, q = {0};
        for (; p + LANES <= end; p += LANES) {
            vec v = load(x + p) - filled(pivot);
            s += v;
            q += v * v;
        }
        float rest = 0, rest_q = 0;
        for (; p < end; p++) {
            float v = x[p] - pivot;
            rest += v;
            rest_q += v * v;
        }
        sum += total(s) + rest;
        squares += total(q) + rest_q;
    }
    sums[0] += sum + (double)n * pivot;
    sums[1] += squares + 2 * pivot * sum + (double)n * pivot * pivot;
}

static void clear_sums(training *t, int thread, size_t from, int count) {
    memset(sums_of(t, thread, from), 0, 2 * sizeof(double) * count);
}

/* Means and inverse deviations of `count` channels from all threads' sums; each thread has its own copy. */
static void statistics(training *t, worker *w, size_t from, int count, double positions) {
    for (int c = 0; c < count; c++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < t->threads; i++) sum += sums_of(t, i, from + c)[0], squares += sums_of(t, i, from + c)[1];
        double mean = sum / positions, variance = squares / positions - mean * mean;
        if (variance < 0) variance = 0;
        w->mean[from + c] = mean;
        w->inverse[from + c] = 1 / sqrt(variance + t->net.epsilon);
    }
}

static void remember(training *t, const worker *w, const norm *n, size_t from, double positions) { /* running */
    float part = t->net.momentum;
    for (int c = 0; c < n->channels; c++) {
        double inverse = w->inverse[from + c], variance = 1 / (inverse * inverse) - t->net.epsilon;
        n->mean[c] += part * (w->mean[from + c] - n->mean[c]);
        n->variance[c] += part * ((float)(variance * positions / (positions > 1 ? positions - 1 : 1)) - n->variance[c]);
    }
}

/* Scale and shift of a norm: of the batch (from: where its statistics begin), or of the running statistics. */
static void affine(training *t, worker *w, const norm *n, size_t from, int learning) {
    for (int c = 0; c < n->channels; c++) {
        float inverse = learning ? w->inverse[from + c] : (float)(1 / sqrt((double)n->variance[c] + t->net.epsilon));
        w->scale[c] = n->weight[c] * inverse;
        w->shift[c] = n->bias[c] - (learning ? w->mean[from + c] : n->mean[c]) * w->scale[c];
    }
}

/* ---- the 1x1 convolution --------------------------------------------------------------------------------- */

static long tile_of(const layer *l) {
    long tile = TILE_FLOATS / (2 * (l->in + l->mid)) / UNIT * UNIT;
    return tile < UNIT ? UNIT : tile > 4 * UNIT ? 4 * UNIT : tile;
}

/* A dense layer (nothing dropped yet) is one group of all outputs, in their order. */
INLINE int groups_now(const layer *l) { return l->kept == l->in ? 1 : l->groups; }
INLINE int column(const layer *l, int group, int k) { return l->kept == l->in ? k : l->columns[group * l->kept + k]; }
INLINE int output(const layer *l, int group, int i) { return i * groups_now(l) + group; }

static void fill_a(worker *w, const layer *l, const float *x, long row, long start, long tile) {
    for (int c = 0; c < l->in; c++) {
        const float *from = x + c * row + start;
        float *to = w->a + c * tile;
        vec scale = filled(w->scale[c]), shift = filled(w->shift[c]);
        for (long p = 0; p < tile; p += LANES) store(to + p, positive(load(from + p) * scale + shift));
    }
}

static void pack_1x1(worker *w, const layer *l) { /* by output, for the way forward */
    int groups = groups_now(l), outputs = l->mid / groups;
    float *packed = w->packed;
    for (int g = 0; g < groups; g++)
        for (int o = 0, width; o < outputs; o += width) {
            width = block_of(outputs - o);
            for (int k = 0; k < l->kept; k++)
                for (int i = 0; i < width; i++)
                    *packed++ = l->weight_1x1[(size_t)output(l, g, o + i) * l->in + column(l, g, k)];
        }
}

static void pack_1x1_back(worker *w, const layer *l) { /* by input */
    int groups = groups_now(l), outputs = l->mid / groups;
    float *packed = w->packed;
    for (int g = 0; g < groups; g++)
        for (int k = 0, width; k < l->kept; k += width) {
            width = block_of(l->kept - k);
            for (int o = 0; o < outputs; o++)
                for (int i = 0; i < width; i++)
                    *packed++ = l->weight_1x1[(size_t)output(l, g, o) * l->in + column(l, g, k + i)];
        }
}

/* Norm, ReLU and 1x1 of all positions; sums: of the outputs, or NULL. Scale and shift of the norm are set. */
static void forward_1x1(training *t, worker *w, const layer *l, float *y, double *sums) {
    const stage *s = t->stages + l->stage;
    long positions = (long)w->images * s->pixels, tile = tile_of(l);
    int groups = groups_now(l), outputs = l->mid / groups;
    const float *x = w->x[l->stage];
    pack_1x1(w, l);
    for (long start = 0; start < positions; start += tile) {
        long floats = positions - start < tile ? up(positions - start, UNIT) : tile;
        fill_a(w, l, x, s->row, start, floats);
        for (int g = 0; g < groups; g++) {
            for (int k = 0; k < l->kept; k++) w->from[k] = w->a + column(l, g, k) * floats;
            for (int i = 0; i < outputs; i++) w->to[i] = y + output(l, g, i) * s->row + start;
            mix(w->to, outputs, w->from, l->kept, w->packed + (size_t)g * outputs * l->kept, floats, 0);
        }
        long valid = positions - start < floats ? positions - start : floats;
        if (sums)
            for (int o = 0; o < l->mid; o++) add_row(sums + 2 * o, y + o * s->row + start, valid);
    }
}

/* Gradients of the 1x1, its norm and the features before it. */
static void backward_1x1(training *t, worker *w, const layer *l, const float *y, float *gradients, const double *share,
                         double *sums, size_t y_mean) {
    const stage *s = t->stages + l->stage;
    long positions = (long)w->images * s->pixels, tile = tile_of(l);
    int groups = groups_now(l), outputs = l->mid / groups;
    const float *x = w->x[l->stage], *mean = w->mean + s->mean, *inverse = w->inverse + s->mean;
    float *d_weight = w->packed + (size_t)l->mid * l->kept; /* (group, output, kept) */
    pack_1x1_back(w, l);
    memset(d_weight, 0, sizeof(float) * l->mid * l->kept);
    for (long start = 0; start < positions; start += tile) {
        long floats = positions - start < tile ? up(positions - start, UNIT) : tile;
        long valid = positions - start < floats ? positions - start : floats;
        fill_a(w, l, x, s->row, start, floats);
        for (int o = 0; o < l->mid; o++) { /* through the norm between the convolutions */
            float inv = w->inverse[y_mean + o], factor = l->between.weight[o] * inv;
            float slope = -factor * inv * (float)share[2 * o + 1];
            float offset = -factor * (float)share[2 * o] - slope * w->mean[y_mean + o];
            const float *e = w->e + o * s->row + start, *from = y + o * s->row + start;
            float *to = w->dy + o * floats;
            vec f = filled(factor), m = filled(slope), b = filled(offset);
            for (long p = 0; p < floats; p += LANES) store(to + p, load(e + p) * f + (load(from + p) * m + b));
            if (valid < floats) memset(to + valid, 0, sizeof(float) * (floats - valid));
        }
        int dense = groups == 1 && l->kept == l->in;
        if (!dense) memset(w->da, 0, sizeof(float) * l->in * floats);
        for (int g = 0; g < groups; g++) {
            const float *dy[outputs];
            for (int i = 0; i < outputs; i++) dy[i] = w->dy + output(l, g, i) * floats;
            for (int k = 0; k < l->kept; k++) w->to[k] = w->da + column(l, g, k) * floats;
            mix(w->to, l->kept, dy, outputs, w->packed + (size_t)g * outputs * l->kept, floats, !dense);
            for (int k = 0; k < l->kept; k++) w->from[k] = w->a + column(l, g, k) * floats;
            dots(d_weight + (size_t)g * outputs * l->kept, l->kept, dy, outputs, w->from, l->kept, floats);
        }
        for (int c = 0; c < l->in; c++) {
            const float *da = w->da + c * floats, *a = w->a + c * floats, *from = x + c * s->row + start;
            float *d = w->d + c * s->row + start;
            vec weight = filled(l->before.weight[c]), sum = {0}, spread = {0}, m = filled(mean[c]);
            for (long p = 0; p < floats; p += LANES) {
                vec g = where_positive(load(a + p), load(da + p));
                sum += g;
                spread += g * (load(from + p) - m);
                store(d + p, load(d + p) + weight * g);
            }
            sums[2 * c] += total(sum);
            sums[2 * c + 1] += (double)total(spread) * inverse[c];
        }
    }
    float *to = gradients + l->d_weight_1x1; /* zero before */
    const float *from = d_weight;
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < outputs; i++)
            for (int k = 0; k < l->kept; k++) to[(size_t)output(l, g, i) * l->in + column(l, g, k)] = *from++;
}

/* ---- the 3x3 convolution --------------------------------------------------------------------------------- */

/* Small planes: some images under each other, a row of zeros between them and a column of zeros behind each row. */
typedef struct {
    int images; /* at most so many at a time */
    long pitch, image, start, plane; /* floats of a row, of an image; before the first pixel; of a channel */
} planes;

static planes planes_of(const stage *s) {
    planes p = {.pitch = s->width + 1, .image = (long)(s->height + 1) * (s->width + 1)};
    p.images = SMALL_PLANE / p.image > 1 ? SMALL_PLANE / p.image : 1;
    p.start = up(p.pitch + 1, LANES);
    p.plane = p.start + up(p.images * p.image, UNIT) + up(p.pitch + 1, LANES) + LANES;
    return p;
}

#define EACH_WIDTH(run) run(1) run(2) run(3) run(4) run(7) run(8) run(14) run(16) run(28) run(32)

static void spread_rows(float *to, const float *from, const stage *s, const planes *p, int images) {
    switch (s->width) {
#define CASE(W)                                                                                          \
    case W:                                                                                              \
        for (int n = 0; n < images; n++, to += p->image)                                                 \
            for (int h = 0; h < s->height; h++, from += W) memcpy(to + h * (W + 1), from, 4 * W);        \
        return;
        EACH_WIDTH(CASE)
#undef CASE
    }
    for (int n = 0; n < images; n++, to += p->image)
        for (int h = 0; h < s->height; h++, from += s->width) memcpy(to + h * p->pitch, from, 4 * s->width);
}

static void gather_rows(float *to, const float *from, const stage *s, const planes *p, int images) {
    switch (s->width) {
#define CASE(W)                                                                                          \
    case W:                                                                                              \
        for (int n = 0; n < images; n++, from += p->image)                                               \
            for (int h = 0; h < s->height; h++, to += W) memcpy(to, from + h * (W + 1), 4 * W);          \
        return;
        EACH_WIDTH(CASE)
#undef CASE
    }
    for (int n = 0; n < images; n++, from += p->image)
        for (int h = 0; h < s->height; h++, to += s->width) memcpy(to, from + h * p->pitch, 4 * s->width);
}

static long shift_of(const planes *p, int k) { return (k / 3 - 1) * p->pitch + k % 3 - 1; }

static void fill_z(worker *w, const layer *l, const float *y, const stage *s, const planes *p, int first, int images) {
    long floats = (long)images * s->pixels;
    for (int c = 0; c < l->mid; c++) {
        const float *from = y + c * s->row + (long)first * s->pixels;
        float scale = w->scale[c], shift = w->shift[c];
        vec vs = filled(scale), vb = filled(shift);
        for (long i = 0; i < floats; i += LANES) /* rows have room for a vector more */
            store(w->line + i, positive(load(from + i) * vs + vb));
        spread_rows(w->z + c * p->plane + p->start, w->line, s, p, images);
    }
}

static void clear_planes(float *z, int channels, const planes *p) { memset(z, 0, sizeof(float) * channels * p->plane); }

static void pack_3x3(worker *w, const layer *l, int back) {
    int groups = l->groups_3x3, inputs = l->mid / groups, outputs = l->growth / groups;
    float *packed = w->packed;
    for (int g = 0; g < groups; g++) {
        const float *weight = l->weight_3x3 + (size_t)g * outputs * inputs * 9;
        int rows = back ? inputs : outputs, others = back ? outputs : inputs;
        for (int o = 0, width; o < rows; o += width) {
            width = block_of(rows - o);
            for (int j = 0; j < others; j++)
                for (int k = 0; k < 9; k++)
                    for (int i = 0; i < width; i++)
                        *packed++ = back ? weight[((size_t)j * inputs + o + i) * 9 + 8 - k]
                                         : weight[((size_t)(o + i) * inputs + j) * 9 + k];
        }
    }
}

static void forward_3x3(training *t, worker *w, const layer *l, const float *y, double *sums) {
    const stage *s = t->stages + l->stage;
    planes p = planes_of(s);
    int groups = l->groups_3x3, inputs = l->mid / groups, outputs = l->growth / groups;
    clear_planes(w->z, l->mid, &p);
    pack_3x3(w, l, 0);
    for (int first = 0; first < w->images; first += p.images) {
        int images = w->images - first < p.images ? w->images - first : p.images;
        fill_z(w, l, y, s, &p, first, images);
        long floats = up(images * p.image, UNIT);
        for (int g = 0; g < groups; g++) {
            for (int j = 0; j < inputs; j++)
                for (int k = 0; k < 9; k++)
                    w->from[9 * j + k] = w->z + (g * inputs + j) * p.plane + p.start + shift_of(&p, k);
            for (int o = 0; o < outputs; o++) w->to[o] = w->dx + o * p.plane;
            mix(w->to, outputs, w->from, 9 * inputs, w->packed + (size_t)g * outputs * inputs * 9, floats, 0);
            for (int o = 0; o < outputs; o++) {
                int c = g * outputs + o;
                float *to = w->x[l->stage] + (l->in + c) * s->row + (long)first * s->pixels;
                gather_rows(to, w->dx + o * p.plane, s, &p, images);
                if (sums) add_row(sums + 2 * c, to, (long)images * s->pixels);
            }
        }
    }
}

/* The gradient of a stage's feature c at the positions of some images, once all its readers have spoken. */
static void feature_gradient(training *t, worker *w, int number, int c, int first, int images, float *to) {
    const stage *s = t->stages + number;
    float inv = w->inverse[s->mean + c], slope = -inv * inv * (float)w->d_spread[c];
    float offset = -inv * (float)w->d_mean[c] - slope * w->mean[s->mean + c];
    long at = c * s->row + (long)first * s->pixels;
    const float *d = w->d + at, *x = w->x[number] + at;
    vec f = filled(inv), m = filled(slope), b = filled(offset);
    for (long p = 0; p < (long)images * s->pixels; p += LANES) store(to + p, load(d + p) * f + (load(x + p) * m + b));
    if (number + 1 == t->net.stages) return;
    const stage *next = s + 1;
    const float *pooled = w->pooled[(number + 1) & 1] + c * next->row + (long)first * next->pixels;
    for (int n = 0; n < images; n++, to += s->pixels, pooled += next->pixels)
        for (int h = 0; h < next->height; h++)
            for (int v = 0; v < next->width; v++) {
                float part = 0.25f * pooled[h * next->width + v], *pixel = to + 2 * h * s->width + 2 * v;
                pixel[0] += part, pixel[1] += part, pixel[s->width] += part, pixel[s->width + 1] += part;
            }
}

/* Gradients of the 3x3 and of the norm before it (scale and shift are set); leaves those of its outputs in e. */
static void backward_3x3(training *t, worker *w, const layer *l, const float *y, float *gradients, double *sums,
                         size_t y_mean) {
    const stage *s = t->stages + l->stage;
    planes p = planes_of(s);
    int groups = l->groups_3x3, inputs = l->mid / groups, outputs = l->growth / groups;
    clear_planes(w->z, l->mid, &p);
    clear_planes(w->dx, l->growth, &p);
    pack_3x3(w, l, 1);
    for (int first = 0; first < w->images; first += p.images) {
        int images = w->images - first < p.images ? w->images - first : p.images;
        if (images < p.images) clear_planes(w->dx, l->growth, &p); /* what an earlier block left there */
        fill_z(w, l, y, s, &p, first, images);
        for (int c = 0; c < l->growth; c++) {
            feature_gradient(t, w, l->stage, l->in + c, first, images, w->line);
            spread_rows(w->dx + c * p.plane + p.start, w->line, s, &p, images);
        }
        long floats = up(images * p.image, UNIT), summed = up(images * p.image, LANES);
        for (int g = 0; g < groups; g++) {
            const float *dx[outputs];
            for (int o = 0; o < outputs; o++) dx[o] = w->dx + (g * outputs + o) * p.plane + p.start;
            for (int j = 0; j < inputs; j++)
                for (int k = 0; k < 9; k++)
                    w->from[9 * j + k] = w->z + (g * inputs + j) * p.plane + p.start + shift_of(&p, k);
            dots(gradients + l->d_weight_3x3 + (size_t)g * outputs * inputs * 9, 9 * inputs, dx, outputs, w->from,
                 9 * inputs, summed);
            for (int o = 0; o < outputs; o++)
                for (int k = 0; k < 9; k++) w->from[9 * o + k] = dx[o] + shift_of(&p, k);
            for (int j = 0; j < inputs; j++) w->to[j] = w->dz + j * p.plane;
            mix(w->to, inputs, w->from, 9 * outputs, w->packed + (size_t)g * outputs * inputs * 9, floats, 0);
            for (int j = 0; j < inputs; j++) {
                int c = g * inputs + j;
                long n = (long)images * s->pixels, i = 0, at = c * s->row + (long)first * s->pixels;
                gather_rows(w->line, w->dz + j * p.plane, s, &p, images);
                float scale = w->scale[c], shift = w->shift[c], mean = w->mean[y_mean + c], sum = 0, spread = 0;
                vec vs = filled(scale), vb = filled(shift), vm = filled(mean), v_sum = {0}, v_spread = {0};
                for (; i + LANES <= n; i += LANES) {
                    vec value = load(y + at + i), d = where_positive(value * vs + vb, load(w->line + i));
                    v_sum += d;
                    v_spread += d * (value - vm);
                    store(w->e + at + i, d);
                }
                for (; i < n; i++) {
                    float value = y[at + i], d = value * scale + shift > 0 ? w->line[i] : 0;
                    sum += d;
                    spread += d * (value - mean);
                    w->e[at + i] = d;
                }
                sums[2 * c] += total(v_sum) + sum;
                sums[2 * c + 1] += ((double)total(v_spread) + spread) * w->inverse[y_mean + c];
            }
        }
    }
}

/* ---- the whole way --------------------------------------------------------------------------------------- */

static void pool(training *t, worker *w, int number) { /* 2x2 means of the stage before */
    const stage *from = t->stages + number - 1, *to = from + 1;
    for (int c = 0; c < to->first; c++) {
        const float *x = w->x[number - 1] + c * from->row;
        float *y = w->x[number] + c * to->row;
        for (int n = 0; n < w->images; n++, x += from->pixels)
            for (int h = 0; h < to->height; h++) {
                const float *pixel = x + 2 * h * from->width;
                for (int v = 0; v < to->width; v++, pixel += 2)
                    *y++ = 0.25f * (pixel[0] + pixel[1] + pixel[from->width] + pixel[from->width + 1]);
            }
    }
}

static void new_features(training *t, worker *w, int thread, int number, int from, int count, int summed) {
    const stage *s = t->stages + number;
    if (!summed) {
        clear_sums(t, thread, s->mean + from, count);
        for (int c = from; c < from + count; c++)
            add_row(sums_of(t, thread, s->mean + c), w->x[number] + c * s->row, (long)w->images * s->pixels);
    }
    meet(t, w);
    statistics(t, w, s->mean + from, count, (double)t->images * s->pixels);
}

static void share_images(training *t, worker *w, int thread, int images) {
    t->images = images; /* every thread writes the same */
    w->first_image = (int)((long)images * thread / t->threads);
    int before = w->images;
    w->images = (int)((long)images * (thread + 1) / t->threads) - w->first_image;
    if (w->images >= before) return;
    for (int i = 0; i < t->net.stages; i++) { /* behind fewer images: nothing of the earlier ones, which may be NaN */
        const stage *s = t->stages + i;
        long valid = (long)w->images * s->pixels;
        for (int c = 0; c < s->channels; c++)
            memset(w->x[i] + c * s->row + valid, 0, sizeof(float) * (up(valid, UNIT) - valid));
    }
}

/* x: (images, stem, height, width), the stem's output; features: (images, features). Learning: batch statistics, which
 * the running ones follow, and everything is kept for the way back; else the running ones, and nothing is kept. */
void training_forward(training *t, int thread, const float *x, float *features, int images, int learning) {
    const network *net = &t->net;
    worker *w = t->workers + thread;
    share_images(t, w, thread, images);
    stage *s = t->stages;
    for (int c = 0; c < net->stem; c++)
        for (int n = 0; n < w->images; n++)
            memcpy(w->x[0] + c * s->row + (long)n * s->pixels,
                   x + ((long)(w->first_image + n) * net->stem + c) * s->pixels, sizeof(float) * s->pixels);
    if (learning) new_features(t, w, thread, 0, 0, net->stem, 0);
    for (int i = 0; i < net->layers; i++) {
        const layer *l = net->layer + i;
        if (l->stage && l->in == t->stages[l->stage].first) {
            pool(t, w, l->stage);
            if (learning) new_features(t, w, thread, l->stage, 0, l->in, 0);
        }
        s = t->stages + l->stage;
        double positions = (double)images * s->pixels, *sums = NULL;
        affine(t, w, &l->before, s->mean, learning);
        if (learning) clear_sums(t, thread, t->y_mean[i], l->mid), sums = sums_of(t, thread, t->y_mean[i]);
        forward_1x1(t, w, l, w->y[i], sums);
        if (learning) {
            meet(t, w);
            statistics(t, w, t->y_mean[i], l->mid, positions);
        }
        affine(t, w, &l->between, t->y_mean[i], learning);
        if (learning) clear_sums(t, thread, s->mean + l->in, l->growth), sums = sums_of(t, thread, s->mean + l->in);
        forward_3x3(t, w, l, w->y[i], sums);
        if (learning) {
            new_features(t, w, thread, l->stage, l->in, l->growth, 1);
            if (thread == 0) {
                remember(t, w, &l->before, s->mean, positions);
                remember(t, w, &l->between, t->y_mean[i], positions);
            }
        }
    }
    s = t->stages + net->stages - 1;
    affine(t, w, &net->last, s->mean, learning);
    if (learning && thread == 0) remember(t, w, &net->last, s->mean, (double)images * s->pixels);
    for (int c = 0; c < net->features; c++)
        for (int n = 0; n < w->images; n++) {
            const float *from = w->x[net->stages - 1] + c * s->row + (long)n * s->pixels;
            float sum = 0;
            for (int p = 0; p < s->pixels; p++) {
                float value = from[p] * w->scale[c] + w->shift[c];
                sum += 0 > value ? 0 : value;
            }
            features[(long)(w->first_image + n) * net->features + c] = sum / s->pixels;
        }
}

/* Add what one norm's readers said to its features' sums; keep the gradients of its weights and biases. */
static void norm_gradients(training *t, worker *w, int thread, const norm *n, size_t from, double positions,
                           int to_features) {
    for (int c = 0; c < n->channels; c++) {
        double sum = 0, spread = 0;
        for (int i = 0; i < t->threads; i++) sum += sums_of(t, i, from + c)[0], spread += sums_of(t, i, from + c)[1];
        if (thread == 0) {
            t->net.gradients[n->d_weight + c] = spread;
            t->net.gradients[n->d_bias + c] = sum;
        }
        if (to_features) {
            w->d_mean[c] += n->weight[c] * sum / positions;
            w->d_spread[c] += n->weight[c] * spread / positions;
        }
    }
}

static void begin_stage(training *t, worker *w, int number) {
    const stage *s = t->stages + number;
    memset(w->d, 0, sizeof(float) * s->channels * s->row);
    memset(w->d_mean, 0, sizeof(double) * s->channels);
    memset(w->d_spread, 0, sizeof(double) * s->channels);
}

static void backward_last(training *t, worker *w, int thread, const float *d_features) {
    const network *net = &t->net;
    const stage *s = t->stages + net->stages - 1;
    affine(t, w, &net->last, s->mean, 1);
    clear_sums(t, thread, s->mean, net->features);
    for (int c = 0; c < net->features; c++) {
        double *sums = sums_of(t, thread, s->mean + c);
        float mean = w->mean[s->mean + c], weight = net->last.weight[c];
        for (int n = 0; n < w->images; n++) {
            float part = d_features[(long)(w->first_image + n) * net->features + c] / s->pixels;
            const float *x = w->x[net->stages - 1] + c * s->row + (long)n * s->pixels;
            float *d = w->d + c * s->row + (long)n * s->pixels, sum = 0, spread = 0;
            for (int p = 0; p < s->pixels; p++) {
                float g = x[p] * w->scale[c] + w->shift[c] > 0 ? part : 0;
                sum += g;
                spread += g * (x[p] - mean);
                d[p] = weight * g;
            }
            sums[0] += sum;
            sums[1] += (double)spread * w->inverse[s->mean + c];
        }
    }
    meet(t, w);
    norm_gradients(t, w, thread, &net->last, s->mean, (double)t->images * s->pixels, 1);
    meet(t, w); /* the sums are used again */
}

static void backward_layer(training *t, worker *w, int thread, int i) {
    const layer *l = t->net.layer + i;
    const stage *s = t->stages + l->stage;
    double positions = (double)t->images * s->pixels, share[2 * l->mid];
    float *gradients = t->net.gradients + (size_t)thread * t->net.gradient_floats;
    if (t->recompute) {
        affine(t, w, &l->before, s->mean, 1);
        forward_1x1(t, w, l, w->y[i], NULL);
    }
    affine(t, w, &l->between, t->y_mean[i], 1);
    clear_sums(t, thread, t->y_mean[i], l->mid);
    backward_3x3(t, w, l, w->y[i], gradients, sums_of(t, thread, t->y_mean[i]), t->y_mean[i]);
    meet(t, w);
    norm_gradients(t, w, thread, &l->between, t->y_mean[i], positions, 0);
    for (int c = 0; c < l->mid; c++) {
        share[2 * c] = share[2 * c + 1] = 0;
        for (int j = 0; j < t->threads; j++) {
            share[2 * c] += sums_of(t, j, t->y_mean[i] + c)[0] / positions;
            share[2 * c + 1] += sums_of(t, j, t->y_mean[i] + c)[1] / positions;
        }
    }
    affine(t, w, &l->before, s->mean, 1);
    clear_sums(t, thread, s->mean, l->in);
    backward_1x1(t, w, l, w->y[i], gradients, share, sums_of(t, thread, s->mean), t->y_mean[i]);
    meet(t, w);
    norm_gradients(t, w, thread, &l->before, s->mean, positions, 1);
    meet(t, w);
}

/* d_features: (images, features); d_x: (images, stem, height, width). Gradients of all weights: see network. */
void training_backward(training *t, int thread, const float *d_features, float *d_x) {
    const network *net = &t->net;
    worker *w = t->workers + thread;
    memset(net->gradients + (size_t)thread * net->gradient_floats, 0, sizeof(float) * net->gradient_floats);
    begin_stage(t, w, net->stages - 1);
    backward_last(t, w, thread, d_features);
    for (int i = net->layers - 1; i >= 0; i--) {
        const layer *l = net->layer + i;
        const stage *s = t->stages + l->stage;
        backward_layer(t, w, thread, i);
        if (l->in != s->first) continue;
        if (l->stage == 0) break;
        for (int c = 0; c < l->in; c++)
            feature_gradient(t, w, l->stage, c, 0, w->images, w->pooled[l->stage & 1] + c * s->row);
        begin_stage(t, w, l->stage - 1);
    }
    const stage *s = t->stages;
    for (int c = 0; c < net->stem; c++)
        for (int n = 0; n < w->images; n++) {
            feature_gradient(t, w, 0, c, n, 1, w->line);
            memcpy(d_x + ((long)(w->first_image + n) * net->stem + c) * s->pixels, w->line, sizeof(float) * s->pixels);
        }
    meet(t, w);
    if (thread) return;
    for (int i = 1; i < t->threads; i++) {
        const float *from = net->gradients + (size_t)i * net->gradient_floats;
        for (int64_t p = 0; p < net->gradient_floats; p++) net->gradients[p] += from[p];
    }
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

static void *room(size_t count, size_t size) { /* zeros, aligned to a cache line */
    void *to = NULL;
    size_t bytes = up(count * size + 64, 64);
    if (posix_memalign(&to, 64, bytes)) return NULL;
    return memset(to, 0, bytes);
}

void training_abandon(training *t) { atomic_store(&t->abandoned, 1); }

void training_close(training *t) {
    if (!t) return;
    for (int i = 0; t->workers && i < t->threads; i++) {
        worker *w = t->workers + i;
        for (int s = 0; w->x && s < t->net.stages; s++) free(w->x[s]);
        for (int l = 0; w->y && l < (t->recompute ? 1 : t->net.layers); l++) free(w->y[l]);
        void *rooms[] = {w->x,    w->y,      w->d,    w->e,  w->pooled[0], w->pooled[1], w->a,     w->da,
                         w->dy,   w->z,      w->dx,   w->dz, w->line,      w->packed,    w->from,  w->to,
                         w->mean, w->inverse, w->scale, w->shift, w->d_mean, w->d_spread};
        for (size_t k = 0; k < sizeof(rooms) / sizeof(*rooms); k++) free(rooms[k]);
    }
    free(t->stages), free(t->y_mean), free(t->sums), free(t->workers), free(t);
}

#define MOST(a, b) ((a) > (b) ? (a) : (b))

/* Floats (and pointers) of a worker's rooms, as large as the stage or layer that needs most. */
typedef struct {
    long features, pooled, line, outputs, tile_inputs, tile_outputs, planes_in, planes_out, packed, pointers;
} sizes;

static sizes sizes_of(const training *t) {
    const network *net = &t->net;
    sizes most = {0};
    for (int i = 0; i < net->stages; i++) {
        const stage *s = t->stages + i;
        most.features = MOST(most.features, s->channels * s->row);
        most.line = MOST(most.line, (long)s->pixels * planes_of(s).images);
        if (i) most.pooled = MOST(most.pooled, s->first * s->row);
    }
    for (int i = 0; i < net->layers; i++) {
        const layer *l = net->layer + i;
        const stage *s = t->stages + l->stage;
        long plane = planes_of(s).plane, weights_3x3 = 9L * l->mid * l->growth / l->groups_3x3;
        most.outputs = MOST(most.outputs, l->mid * s->row);
        most.tile_inputs = MOST(most.tile_inputs, l->in * tile_of(l));
        most.tile_outputs = MOST(most.tile_outputs, l->mid * tile_of(l));
        most.planes_in = MOST(most.planes_in, l->mid * plane);
        most.planes_out = MOST(most.planes_out, l->growth * plane);
        most.packed = MOST(most.packed, MOST(2L * l->in * l->mid, weights_3x3));
        most.pointers = MOST(most.pointers, MOST(l->in, 9L * MOST(l->mid, l->growth)));
    }
    return most;
}

static int open_rows(training *t, worker *w, long outputs) { /* what is kept from forward to backward */
    const network *net = &t->net;
    if (!(w->x = room(net->stages, sizeof(*w->x))) || !(w->y = room(net->layers, sizeof(*w->y)))) return 0;
    for (int i = 0; i < net->stages; i++)
        if (!(w->x[i] = room(t->stages[i].channels * t->stages[i].row, sizeof(float)))) return 0;
    if (t->recompute && !(w->y[0] = room(outputs, sizeof(float)))) return 0;
    for (int i = 0; i < net->layers; i++) {
        const layer *l = net->layer + i;
        if (t->recompute) w->y[i] = w->y[0];
        else if (!(w->y[i] = room(l->mid * t->stages[l->stage].row, sizeof(float)))) return 0;
    }
    return 1;
}

static int open_worker(training *t, worker *w) {
    sizes n = sizes_of(t);
    size_t f = sizeof(float), pointer = sizeof(void *), channels = MOST(t->net.features, n.pointers);
    return open_rows(t, w, n.outputs) && (w->d = room(n.features, f)) && (w->e = room(n.outputs, f)) &&
           (w->pooled[0] = room(n.pooled, f)) && (w->pooled[1] = room(n.pooled, f)) &&
           (w->a = room(n.tile_inputs, f)) && (w->da = room(n.tile_inputs, f)) &&
           (w->dy = room(n.tile_outputs, f)) && (w->z = room(n.planes_in, f)) && (w->dz = room(n.planes_in, f)) &&
           (w->dx = room(n.planes_out, f)) && (w->line = room(n.line + UNIT, f)) &&
           (w->packed = room(n.packed, f)) && (w->from = room(n.pointers, pointer)) &&
           (w->to = room(n.pointers, pointer)) && (w->mean = room(t->statistics, f)) &&
           (w->inverse = room(t->statistics, f)) && (w->scale = room(channels, f)) &&
           (w->shift = room(channels, f)) && (w->d_mean = room(channels, sizeof(double))) &&
           (w->d_spread = room(channels, sizeof(double)));
}

training *training_open(const network *net, int capacity, int threads, int recompute) {
    training *t = room(1, sizeof(*t));
    if (!t) return NULL;
    t->net = *net, t->capacity = capacity, t->threads = threads, t->recompute = recompute;
    t->stages = room(net->stages, sizeof(stage)), t->y_mean = room(net->layers, sizeof(size_t));
    t->workers = room(threads, sizeof(worker));
    if (!t->stages || !t->y_mean || !t->workers) return training_close(t), NULL;
    int channels = net->stem, height = net->height, width = net->width;
    for (int s = 0, i = 0; s < net->stages; s++, height /= 2, width /= 2) {
        stage *at = t->stages + s;
        *at = (stage){.height = height, .width = width, .pixels = height * width, .first = channels};
        for (; i < net->layers && net->layer[i].stage == s; i++) channels += net->layer[i].growth;
        at->channels = channels, at->mean = t->statistics;
        at->row = up((long)(capacity + threads - 1) / threads * at->pixels, UNIT) + UNIT + LANES;
        t->statistics += channels;
    }
    for (int i = 0; i < net->layers; i++) t->y_mean[i] = t->statistics, t->statistics += net->layer[i].mid;
    t->sums = room((size_t)threads * t->statistics, 2 * sizeof(double));
    int whole = t->sums != NULL;
    for (int i = 0; whole && i < threads; i++) whole = open_worker(t, t->workers + i);
    if (!whole) return training_close(t), NULL;
    return t;
}
