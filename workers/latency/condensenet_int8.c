/* Runs a deployed CondenseNet in int8: the whole network, with no library but the C one.
 *
 *     size_t floats = condensenet_workspace(model, size_in_words);   // 0: not a valid model; check once
 *     condensenet_run(model, image, logits, workspace);              // workspace: that many floats
 *
 * Build: cc -O3 -shared -fPIC condensenet_int8.c, with -march=armv8.2-a+dotprod where the processor has dot products.
 * Little-endian. Reentrant: nothing is allocated and nothing global is written; each thread needs a workspace of its
 * own. Several threads can share one run, a part of the rows each: condensenet_part, and condensenet_threads.c.
 *
 * Notable choices:
 * - Every channel has a scale and a zero of its own; they are part of the weights and biases that read it. So the
 *   batch norm and ReLU before a 1x1 are one instruction for 16 numbers: relu(s x + b) = s max(x, limit) - s limit.
 * - A convolution adds products of int8 in int32, times a fraction of 2^31, rounded, cut to int8. Zero after ReLU is
 *   -128, so cutting is ReLU. All of it is whole numbers: every processor gives the same bits, with any number of
 *   threads. Floats are the image, times a scale and rounded to even, and the logits, one product each.
 * - No sum overflows: condensenet_workspace refuses biases beyond 2^30, weights of -128, and a classifier whose sums
 *   could pass 2^31.
 * - Features are planes, so that gathering is reading through row pointers. Four channels are interleaved (a "quad"),
 *   since a dot-product instruction multiplies four neighbouring bytes; without it, NEON or x86 does the same.
 * - The 3x3 reads quads with a border of zeros, without looking for the image's edge.
 * - The exporter (workers/export/native_int8.py) writes the model; its docstring describes the format.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 16")

/* ---- vectors: 16 bytes, and sums of four positions ------------------------------------------------------- */

/* bytes       16 int8
 * sums        32-bit sums of 4 positions, perhaps in more than one part each
 * start       sums that begin with a number
 * dot         adds to position p the products of its bytes 4p to 4p + 3 with the four of a lane of weights
 * put         sums as 4 numbers (not ARM)
 * cut         sums of 8 positions times a fraction of 2^31, rounded, cut to int8; cut_all: of 16
 * above, below    the larger, the smaller of two bytes
 * interleave      bytes 0 of a, b, c, d, then bytes 1, and so on, of the first 8 or all 16
 * every_other     of 8 words those with an even number
 */

#if defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
typedef int8x16_t bytes;
typedef int32x4_t sums;
typedef int8x8_t eight;
INLINE bytes load(const void *from) { return vld1q_s8((const int8_t *)from); }
INLINE void store(void *to, bytes x) { vst1q_s8((int8_t *)to, x); }
INLINE bytes all(int8_t x) { return vdupq_n_s8(x); }
INLINE bytes above(bytes a, bytes b) { return vmaxq_s8(a, b); }
INLINE bytes below(bytes a, bytes b) { return vminq_s8(a, b); }
INLINE sums start(int32_t bias) { return vdupq_n_s32(bias); }
#if defined(__ARM_FEATURE_DOTPROD)
/* As instructions and in this order: a compiler that arranges the intrinsics anew moves sums between registers. */
#define DOT(lane) __asm__ volatile("sdot %0.4s, %1.16b, %2.4b[" #lane "]" : "+w"(s) : "w"(x), "w"(w))
INLINE sums dot(sums s, bytes x, bytes w, int lane) {
    switch (lane) {
    case 0: DOT(0); return s;
    case 1: DOT(1); return s;
    case 2: DOT(2); return s;
    default: DOT(3); return s;
    }
}
#else
INLINE sums dot(sums s, bytes x, bytes w, int lane) {
    int32x4_t words = vreinterpretq_s32_s8(w);
    int32x4_t four = lane == 0   ? vdupq_laneq_s32(words, 0)
                     : lane == 1 ? vdupq_laneq_s32(words, 1)
                     : lane == 2 ? vdupq_laneq_s32(words, 2)
                                 : vdupq_laneq_s32(words, 3);
    int16x8_t low, high; /* two products are at most 2 * 128 * 127: they fit */
    __asm__ volatile("smull %1.8h, %3.8b, %4.8b\n\tsmull2 %2.8h, %3.16b, %4.16b\n\t"
                     "addp %1.8h, %1.8h, %2.8h\n\tsadalp %0.4s, %1.8h"
                     : "+w"(s), "=&w"(low), "=&w"(high)
                     : "w"(x), "w"(four));
    return s;
}
#endif
INLINE eight cut(sums a, sums b, int32_t fraction) {
    int16x4_t low = vqmovn_s32(vqrdmulhq_n_s32(a, fraction));
    return vqmovn_s16(vqmovn_high_s32(low, vqrdmulhq_n_s32(b, fraction)));
}
INLINE void store_eight(int8_t *to, eight x) { vst1_s8(to, x); }
INLINE void store_half(int8_t *to, eight x, int half) {
    if (half) vst1_lane_s32((int32_t *)(void *)to, vreinterpret_s32_s8(x), 1);
    else vst1_lane_s32((int32_t *)(void *)to, vreinterpret_s32_s8(x), 0);
}
INLINE bytes cut_all(const sums *s, int32_t fraction) {
    int16x8_t low = vqmovn_high_s32(vqmovn_s32(vqrdmulhq_n_s32(s[0], fraction)), vqrdmulhq_n_s32(s[1], fraction));
    int16x8_t high = vqmovn_high_s32(vqmovn_s32(vqrdmulhq_n_s32(s[2], fraction)), vqrdmulhq_n_s32(s[3], fraction));
    return vqmovn_high_s16(vqmovn_s16(low), high);
}
INLINE void interleave(int8_t *to, bytes a, bytes b, bytes c, bytes d) { vst4q_s8(to, (int8x16x4_t){{a, b, c, d}}); }
INLINE void interleave_eight(int8_t *to, const int8_t *a, const int8_t *b, const int8_t *c, const int8_t *d) {
    vst4_s8(to, (int8x8x4_t){{vld1_s8(a), vld1_s8(b), vld1_s8(c), vld1_s8(d)}});
}
INLINE bytes every_other(bytes a, bytes b) {
    return vreinterpretq_s8_s32(vuzp1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

#else /* not ARM */

typedef int8_t eight __attribute__((vector_size(8)));
#if defined(__AVX2__) && !defined(CONDENSENET_PLAIN) /* CONDENSENET_PLAIN: as on any other processor */
#include <immintrin.h>
typedef __m128i bytes;
typedef __m256i sums; /* of each position two parts, side by side */
INLINE bytes load(const void *from) { return _mm_loadu_si128((const __m128i *)from); }
INLINE void store(void *to, bytes x) { _mm_storeu_si128((__m128i *)to, x); }
INLINE bytes all(int8_t x) { return _mm_set1_epi8(x); }
INLINE bytes above(bytes a, bytes b) { return _mm_max_epi8(a, b); }
INLINE bytes below(bytes a, bytes b) { return _mm_min_epi8(a, b); }
INLINE sums start(int32_t bias) { return _mm256_set1_epi64x((int64_t)(uint32_t)bias); }
INLINE sums dot(sums s, bytes x, bytes w, int lane) {
    int32_t four = ((__attribute__((vector_size(16))) int32_t)w)[lane];
    __m256i wide = _mm256_cvtepi8_epi16(x), weights = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
    return _mm256_add_epi32(s, _mm256_madd_epi16(wide, weights));
}
INLINE __m128i scaled(sums s, __m128i fraction) {
    __m128i a = _mm256_castsi256_si128(s), b = _mm256_extracti128_si256(s, 1), half = _mm_set1_epi64x(1 << 30);
    __m128i whole = _mm_hadd_epi32(a, b);
    __m128i even = _mm_add_epi64(_mm_mul_epi32(whole, fraction), half);
    __m128i odd = _mm_add_epi64(_mm_mul_epi32(_mm_srli_epi64(whole, 32), fraction), half);
    return _mm_blend_epi16(_mm_srli_epi64(even, 31), _mm_slli_epi64(odd, 1), 0xcc);
}
INLINE eight cut(sums a, sums b, int32_t fraction) {
    __m128i f = _mm_set1_epi32(fraction), wide = _mm_packs_epi32(scaled(a, f), scaled(b, f));
    int64_t low = _mm_cvtsi128_si64(_mm_packs_epi16(wide, wide));
    eight x;
    memcpy(&x, &low, 8);
    return x;
}
INLINE bytes cut_all(const sums *s, int32_t fraction) {
    __m128i f = _mm_set1_epi32(fraction), low = _mm_packs_epi32(scaled(s[0], f), scaled(s[1], f));
    return _mm_packs_epi16(low, _mm_packs_epi32(scaled(s[2], f), scaled(s[3], f)));
}
INLINE void interleave(int8_t *to, bytes a, bytes b, bytes c, bytes d) {
    bytes ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
    store(to, _mm_unpacklo_epi16(ab, cd));
    store(to + 16, _mm_unpackhi_epi16(ab, cd));
    ab = _mm_unpackhi_epi8(a, b), cd = _mm_unpackhi_epi8(c, d);
    store(to + 32, _mm_unpacklo_epi16(ab, cd));
    store(to + 48, _mm_unpackhi_epi16(ab, cd));
}
INLINE bytes every_other(bytes a, bytes b) {
    return _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b), 0x88));
}
#else
typedef int8_t bytes __attribute__((vector_size(16)));
INLINE bytes load(const void *from) { bytes x; memcpy(&x, from, 16); return x; }
INLINE void store(void *to, bytes x) { memcpy(to, &x, 16); }
INLINE bytes all(int8_t x) { return x - (bytes){0}; }
INLINE bytes above(bytes a, bytes b) { bytes m = a > b; return (a & m) | (b & ~m); }
INLINE bytes below(bytes a, bytes b) { bytes m = a < b; return (a & m) | (b & ~m); }
#if defined(__SSE2__) && !defined(CONDENSENET_PLAIN)
#include <emmintrin.h>
typedef struct { __m128i low, high; } sums; /* positions 0 and 1, positions 2 and 3; of each two parts, side by side */
INLINE sums start(int32_t bias) {
    __m128i two = _mm_set1_epi64x((int64_t)(uint32_t)bias);
    return (sums){two, two};
}
INLINE sums dot(sums s, bytes x, bytes w, int lane) {
    __m128i zero = _mm_setzero_si128(), in = (__m128i)x, sign = _mm_cmpgt_epi8(zero, in);
    __m128i four = _mm_set1_epi32(((__attribute__((vector_size(16))) int32_t)w)[lane]);
    __m128i weights = _mm_unpacklo_epi8(four, _mm_cmpgt_epi8(zero, four));
    s.low = _mm_add_epi32(s.low, _mm_madd_epi16(_mm_unpacklo_epi8(in, sign), weights));
    s.high = _mm_add_epi32(s.high, _mm_madd_epi16(_mm_unpackhi_epi8(in, sign), weights));
    return s;
}
INLINE void put(sums s, int32_t *to) {
    __m128 low = _mm_castsi128_ps(s.low), high = _mm_castsi128_ps(s.high);
    __m128i even = _mm_castps_si128(_mm_shuffle_ps(low, high, 0x88)), odd = _mm_castps_si128(_mm_shuffle_ps(low, high, 0xdd));
    _mm_storeu_si128((__m128i *)to, _mm_add_epi32(even, odd));
}
#else
typedef int32_t sums __attribute__((vector_size(16)));
INLINE sums start(int32_t bias) { return bias - (sums){0}; }
NOINLINE sums dot(sums s, bytes x, bytes w, int lane) { /* a call: inline, compiling takes a minute */
    for (int i = 0; i < 16; i++) s[i / 4] += x[i] * w[4 * lane + i % 4];
    return s;
}
INLINE void put(sums s, int32_t *to) { memcpy(to, &s, 16); }
#endif
INLINE eight cut(sums a, sums b, int32_t fraction) {
    int32_t whole[8];
    put(a, whole), put(b, whole + 4);
    eight x;
    UNROLL for (int i = 0; i < 8; i++) {
        int64_t y = ((int64_t)whole[i] * fraction + (1 << 30)) >> 31;
        x[i] = y < -128 ? -128 : y > 127 ? 127 : y;
    }
    return x;
}
INLINE bytes cut_all(const sums *s, int32_t fraction) {
    eight half[2] = {cut(s[0], s[1], fraction), cut(s[2], s[3], fraction)};
    return load(half);
}
INLINE void interleave(int8_t *to, bytes a, bytes b, bytes c, bytes d) {
    UNROLL for (int i = 0; i < 16; i++) to[4 * i] = a[i], to[4 * i + 1] = b[i], to[4 * i + 2] = c[i], to[4 * i + 3] = d[i];
}
INLINE bytes every_other(bytes a, bytes b) {
    int32_t x[8], y[4];
    memcpy(x, &a, 16), memcpy(x + 4, &b, 16);
    UNROLL for (int i = 0; i < 4; i++) y[i] = x[2 * i];
    return load(y);
}
#endif
INLINE void store_eight(int8_t *to, eight x) { memcpy(to, &x, 8); }
INLINE void store_half(int8_t *to, eight x, int half) { memcpy(to, (const char *)&x + 4 * half, 4); }
INLINE void interleave_eight(int8_t *to, const int8_t *a, const int8_t *b, const int8_t *c, const int8_t *d) {
    int8_t x[64];
    bytes y[4] = {all(0), all(0), all(0), all(0)};
    memcpy(&y[0], a, 8), memcpy(&y[1], b, 8), memcpy(&y[2], c, 8), memcpy(&y[3], d, 8);
    interleave(x, y[0], y[1], y[2], y[3]);
    memcpy(to, x, 32);
}
#endif

/* ---- the model's header and the sizes that follow from it ------------------------------------------------ */

enum { MAGIC = 0x38444e43, VERSION = 1, MOST = 4096, MOST_STAGES = 16, MOST_WORDS = 1 << 28, MOST_PARTS = 64 };
enum { ZERO = -128, CHUNK = 512, AVERAGE = 16 }; /* zero after ReLU; positions done at a time; parts of 1 in averages */

typedef struct {
    int32_t magic, version, channels, height, width, stride, stem, groups, condense, bottleneck, groups_3x3, classes;
    int32_t classifier_inputs, stages, stage[MOST_STAGES][2]; /* layers, growth */
} header;

typedef struct {
    int height, width;
    size_t plane; /* bytes of one feature channel */
    size_t row, padded; /* words of one row and of one quad with a border; a word is 4 channels at a position */
} image_size;

static size_t up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
static int least(int a, int b) { return a < b ? a : b; }

static image_size size_of(int height, int width, int stride) {
    size_t row = up(width, 8) * stride + 8, rows = (size_t)(height + 3) * stride + 3;
    return (image_size){height, width, up((size_t)height * width, 16) + 16, row, up(rows * row, 16) + 16};
}

static image_size stem_size(const header *net) {
    return size_of((net->height - 1) / net->stride + 1, (net->width - 1) / net->stride + 1, net->stride);
}

static image_size stage_size(int stage, image_size before) {
    return stage ? size_of(before.height / 2, before.width / 2, 1) : size_of(before.height, before.width, 1);
}

/* Outputs that one tile of a 3x3 makes when `left` are to do, and the words of its weights for each quad. */
static int outs_3x3(int left, int stride) { return left > 4 ? 8 : left > 2 || stride == 2 ? 4 : 2; }
static size_t weights_3x3(int outs) { return outs == 2 ? 20 : 9 * outs; }

static size_t words_3x3(int ins, int outs, int stride) {
    size_t words = 0;
    for (int made; outs > 0; outs -= made)
        made = outs_3x3(outs, stride), words += 2 * up(made, 4) + up(ins, 4) / 4 * weights_3x3(made);
    return words;
}

static size_t tile_words(size_t quads) { return 8 + 4 * quads; } /* of a 1x1: 4 outputs */
static size_t words_1x1(int kept, int outs) {
    size_t quads = up(kept, 4) / 4;
    return 1 + 6 * quads + up(outs, 4) / 4 * tile_words(quads);
}

static size_t words_classifier(const header *net) {
    size_t classes = up(net->classes, 8), inputs = net->classifier_inputs;
    return 3 * inputs + 2 * classes + classes / 2 * inputs;
}

/* ---- the learned group convolution ----------------------------------------------------------------------- */

typedef struct {
    const int8_t *plane[4];
    bytes low[4], high[4]; /* limits */
} quad_rows;

INLINE void gather_blocks(quad_rows *g, int both, int8_t *panel, size_t step, int n) {
    bytes x[2][4];
    UNROLL for (int i = 0; i < 4; i++) {
        UNROLL for (int k = 0; k < n; k++) x[k][i] = load(g->plane[i] + 16 * k);
        g->plane[i] += 16 * n;
    }
    UNROLL for (int k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < 4; i++) x[k][i] = above(x[k][i], g->low[i]);
        if (both) { UNROLL for (int i = 0; i < 4; i++) x[k][i] = below(x[k][i], g->high[i]); }
        interleave(panel + k * step, x[k][0], x[k][1], x[k][2], x[k][3]);
    }
}

/* Four planes -> one quad of each block of 16 positions; `step` bytes from one block to the next. */
INLINE void gather_quad(quad_rows g, const int8_t *limits, int both, int8_t *panel, size_t step, int blocks) {
    UNROLL for (int i = 0; i < 4; i++) g.low[i] = all(limits[i]), g.high[i] = all(limits[4 + i]);
    for (; blocks >= 2; blocks -= 2, panel += 2 * step) gather_blocks(&g, both, panel, step, 2);
    if (blocks) gather_blocks(&g, both, panel, step, 1);
}

/* Adds n quads to a tile of 4 outputs x 16 positions. */
INLINE void add_quads(sums s[4][4], const int8_t *panel, const int8_t *weights, int n) {
    bytes w[4];
    UNROLL for (int q = 0; q < n; q++) w[q] = load(weights + 16 * q);
    UNROLL for (int q = 0; q < n; q++) {
        bytes x[4];
        UNROLL for (int v = 0; v < 4; v++) x[v] = load(panel + 64 * q + 16 * v);
        UNROLL for (int v = 0; v < 4; v++) UNROLL for (int o = 0; o < 4; o++) s[o][v] = dot(s[o][v], x[v], w[q], o);
    }
}

/* 4 outputs at every block of 16 positions of the panel -> 4 planes, `step` bytes from one to the next. */
NOINLINE void conv_1x1(const int8_t *panel, size_t quads, const int32_t *tile, int8_t *y, size_t step, int blocks) {
    for (; blocks > 0; blocks--, y += 16) {
        const int8_t *weights = (const int8_t *)(tile + 8);
        sums s[4][4];
        UNROLL for (int o = 0; o < 4; o++) UNROLL for (int v = 0; v < 4; v++) s[o][v] = start(tile[o]);
        for (size_t left = quads / 4; left > 0; left--, panel += 256, weights += 64) add_quads(s, panel, weights, 4);
        if (quads & 2) add_quads(s, panel, weights, 2), panel += 128, weights += 32;
        if (quads & 1) add_quads(s, panel, weights, 1), panel += 64;
        UNROLL for (int o = 0; o < 4; o++) store(y + o * step, cut_all(s[o], tile[4 + o]));
    }
}

typedef struct {
    int8_t *panel, *made; /* of one thread: quads of the gathered channels; planes of the outputs */
    size_t step; /* bytes of one such plane */
} scratch;

/* Rows of four planes -> rows of a quad with a border, from `line` on. */
static void add_border(image_size size, int rows, const int8_t *const *planes, int32_t *line) {
    const int8_t *a = planes[0], *b = planes[1], *c = planes[2], *d = planes[3];
    size_t at = 0, width = size.width, whole = width / 16 * 16, rest = width - whole;
    for (; rows > 0; rows--, line += size.row, at += width) {
        for (size_t i = 0; i < whole; i += 16)
            interleave((int8_t *)(line + i), load(a + at + i), load(b + at + i), load(c + at + i), load(d + at + i));
        if (rest == 0) continue;
        size_t i = whole; /* up to 15 are left: eight, and the last eight */
        if (rest > 8) {
            interleave_eight((int8_t *)(line + i), a + at + i, b + at + i, c + at + i, d + at + i);
            i = width - 8;
        } else if (width > 8) {
            i = width - 8;
        }
        interleave_eight((int8_t *)(line + i), a + at + i, b + at + i, c + at + i, d + at + i);
        if (width < 8) memset(line + width, ZERO, 4);
    }
}

/* Feature planes x -> quads with a border, in training order: the rows from `row` to `last`. */
static void learned_group_conv(const header *net, image_size size, int channels, int outs, const int8_t *x,
                               const int32_t *words, scratch own, int row, int last, int32_t *bordered) {
    int kept = channels / net->condense, quads = up(kept, 4) / 4, tiles = up(outs, 4) / 4, width = size.width;
    int most = CHUNK / width ? CHUNK / width : 1, ins = net->groups * outs / net->groups_3x3;
    for (int rows; row < last; row += rows) {
        rows = least(most, last - row);
        int blocks = up((size_t)rows * width, 16) / 16;
        for (int n = 0; n < net->groups; n++) {
            const int32_t *index = words + n * words_1x1(kept, outs) + 1;
            const int8_t *limits = (const int8_t *)(index + 4 * quads);
            const int32_t *tile = index + 6 * quads;
            int one_limit = index[-1];
            for (int q = 0; q < quads; q++, index += 4, limits += 8) {
                quad_rows g;
                UNROLL for (int i = 0; i < 4; i++) g.plane[i] = x + index[i] * size.plane + (size_t)row * width;
                if (q < one_limit) gather_quad(g, limits, 0, own.panel + 64 * q, 64 * quads, blocks);
                else gather_quad(g, limits, 1, own.panel + 64 * q, 64 * quads, blocks);
            }
            for (int t = 0; t < tiles; t++, tile += tile_words(quads))
                conv_1x1(own.panel, quads, tile, own.made + (4 * (n * tiles + t)) * own.step, own.step, blocks);
        }
        int32_t *quad = bordered;
        for (int first = 0; first < net->groups * outs; first += ins) { /* of a group of the 3x3 */
            for (int c = first; c < first + ins; c += 4, quad += size.padded) {
                const int8_t *planes[4];
                UNROLL for (int i = 0; i < 4; i++) {
                    int channel = c + i < first + ins ? c + i : c;
                    planes[i] = own.made + (channel % net->groups * 4 * tiles + channel / net->groups) * own.step;
                }
                add_border(size, rows, planes, quad + (row + 1) * size.row + 1);
            }
        }
    }
}

/* ---- the 3x3 convolution --------------------------------------------------------------------------------- */

typedef struct {
    image_size size; /* of the output; row and padded are those of the input with its border */
    int quads, outs, row, last; /* outputs to do; the rows to do */
    const int32_t *words;
} conv_3x3;

/* Stores eight outputs, of one row or of two rows of four, as far as they are within so many columns and rows. */
NOINLINE void store_within(int8_t *to, eight x, int V, int columns, int rows, int width) {
    int8_t some[8];
    store_eight(some, x);
    for (int i = 0; i < 8; i++) {
        int column = V == 2 ? i : i % 4, row = V == 2 ? 0 : i / 4;
        if (column < columns && row < rows) to[row * width + column] = some[i];
    }
}

/* Without the empty instruction a compiler would keep the place of every vector in a register of its own. */
INLINE const int32_t *next_line(const int32_t *line, size_t row) {
    line += row;
    __asm__("" : "+r"(line));
    return line;
}

/* Adds to a tile what column dx of the filter makes of one line of the input. */
INLINE void add_line(sums *s, const int32_t *line, const int32_t *weights, int n, int dx, int R, int V, int O, int S) {
    UNROLL for (int v = 0; v < V; v++) {
        const int32_t *at = line + dx + 4 * v * S;
        bytes in = S == 2 ? every_other(load(at), load(at + 4)) : load(at);
        UNROLL for (int dy = 0; dy < 3; dy++) {
            int r = (n - dy) / S;
            if (n < dy || (n - dy) % S || r >= R) continue;
            UNROLL for (int o = 0; o < O; o++) {
                int word = (dx * 3 + dy) * O + o, i = o * R * V + r * V + v;
                s[i] = dot(s[i], in, load(weights + word / 4 * 4), word % 4);
            }
        }
    }
}

/* O outputs at R rows of 4 V positions; S is the stride. Of each quad the weights are [dx][dy][output][4 channels]. */
INLINE void tiles_3x3(const conv_3x3 c, const int32_t *x, int8_t *y, int R, int V, int O, int S) {
    int width = c.size.width, lines = (R - 1) * S + 3, first = O < 4 ? 8 : 2 * O; /* word of the weights */
    for (int row = c.row; row < c.last; row += R) {
        for (int column = 0; column < width; column += 4 * V) {
            sums s[16];
            UNROLL for (int i = 0; i < 16; i++) s[i] = start(c.words[i / (R * V)]);
            const int32_t *from = x + (size_t)row * S * c.size.row + column * S, *weights = c.words + first;
            for (int quad = 0; quad < c.quads; quad++, from += c.size.padded, weights += O == 2 ? 20 : 9 * O) {
                if (O < 8) {
                    const int32_t *line = from;
                    UNROLL for (int n = 0; n < lines; n++, line = next_line(line, c.size.row))
                        UNROLL for (int dx = 0; dx < 3; dx++) add_line(s, line, weights, n, dx, R, V, O, S);
                } else { /* the weights of one column of the filter at a time: registers hold no more */
                    UNROLL for (int dx = 0; dx < 3; dx++) {
                        const int32_t *line = from;
                        UNROLL for (int n = 0; n < lines; n++, line = next_line(line, c.size.row))
                            add_line(s, line, weights, n, dx, R, V, O, S);
                    }
                }
            }
            int whole = row + R <= c.last && column + 4 * V <= width && O <= c.outs;
            UNROLL for (int o = 0; o < O; o++) {
                int8_t *to = y + o * c.size.plane + (size_t)row * width + column;
                UNROLL for (int r = 0; r < R; r += 3 - V) { /* eight positions: of one row, or of two */
                    eight done = cut(s[o * R * V + r * V], s[o * R * V + r * V + 1], c.words[first / 2 + o]);
                    if (whole && V == 2) store_eight(to + r * width, done);
                    else if (whole) store_half(to + r * width, done, 0), store_half(to + (r + 1) * width, done, 1);
                    else if (o < c.outs) store_within(to + r * width, done, V, width - column, c.last - row - r, width);
                }
            }
        }
    }
}

/* One function each, so that a compiler gives each all registers. */
#define TILES(name, R, V, O, S) \
    NOINLINE void name(const conv_3x3 c, const int32_t *x, int8_t *y) { tiles_3x3(c, x, y, R, V, O, S); }
TILES(outs_2, 4, 2, 2, 1)
TILES(outs_4, 4, 1, 4, 1)
TILES(outs_8, 2, 1, 8, 1)
TILES(outs_4_stride_2, 4, 1, 4, 2)
TILES(outs_8_stride_2, 2, 1, 8, 2)

/* Quads with a border x -> feature planes y. */
static void convolve_3x3(conv_3x3 c, const int32_t *x, int8_t *y, int stride) {
    while (c.outs > 0) {
        int made = outs_3x3(c.outs, stride);
        if (made == 8 && stride == 2) outs_8_stride_2(c, x, y);
        else if (made == 8) outs_8(c, x, y);
        else if (made == 4 && stride == 2) outs_4_stride_2(c, x, y);
        else if (made == 4) outs_4(c, x, y);
        else outs_2(c, x, y);
        c.words += 2 * up(made, 4) + c.quads * weights_3x3(made);
        y += made * c.size.plane;
        c.outs -= made;
    }
}

/* ---- the network ----------------------------------------------------------------------------------------- */

/* The workspace: what all parts share, then what each has for itself. */
typedef struct {
    size_t features, bordered, panel, made, step; /* bytes of each buffer */
    int channels; /* features at the end */
} buffers;

static buffers buffers_of(const header *net) {
    image_size size = stem_size(net);
    buffers b = {.channels = net->stem, .bordered = up(net->channels, 4) * size.padded};
    for (int s = 0; s < net->stages; s++) {
        size = stage_size(s, size);
        int growth = net->stage[s][1], made = net->bottleneck * growth, ins = made / net->groups_3x3;
        size_t last_in = b.channels + (size_t)(net->stage[s][0] - 1) * growth;
        b.channels += net->stage[s][0] * growth;
        if (s == 0) b.step = up(size.width > CHUNK ? size.width : CHUNK, 16) + 16; /* no later stage is wider */
        size_t of_stage[4] = {b.channels * size.plane, net->groups_3x3 * up(ins, 4) * size.padded,
                              up(last_in / net->condense, 4) * b.step,
                              net->groups * up(made / net->groups, 4) * b.step};
        if (of_stage[0] > b.features) b.features = of_stage[0];
        if (of_stage[1] > b.bordered) b.bordered = of_stage[1];
        if (of_stage[2] > b.panel) b.panel = of_stage[2];
        if (of_stage[3] > b.made) b.made = of_stage[3];
    }
    return b;
}

static size_t workspace_bytes(const header *net, int parts) {
    buffers b = buffers_of(net);
    return 2 * up(b.features, 64) + 2 * up(b.bordered, 64) + up(2 * (size_t)net->classifier_inputs, 64) +
           parts * (up(b.panel, 64) + up(b.made, 64)) + 64;
}

/* The rows from *first to *last are this part's. */
static void share_rows(int height, int part, int parts, int *first, int *last) {
    int each = (height + parts - 1) / parts;
    if (parts > 1) each = up(each, each > 2 ? 4 : 2);
    *first = least(height, part * each);
    *last = least(height, *first + each);
}

/* Fills the borders of this part's rows, and all else of them. */
static void clear(int32_t *bordered, size_t quads, image_size size, int first, int last, int part, int parts) {
    size_t from = part ? (first + 1) * size.row : 0, to = part + 1 < parts ? (last + 1) * size.row : size.padded;
    for (size_t q = 0; q < quads; q++) memset(bordered + q * size.padded + from, ZERO, 4 * (to - from));
}

INLINE int32_t rounded(float x) { /* to even; x is a number within int32 */
#if defined(__aarch64__)
    return vcvtns_s32_f32(x);
#else
    float magic = 12582912.0f; /* 1.5 * 2^23: beyond it a float has no fractions */
    volatile float sum = x + magic;
    return (int32_t)(sum - magic);
#endif
}

/* Rows of the image -> quads with a border. words: of each channel 1 / scale and zero. */
static void quantise(const header *net, image_size size, const int32_t *words, const float *image, int32_t *bordered,
                     int first, int last, int part, int parts) {
    const float *inverse = (const float *)words;
    for (int q = 0; q < (net->channels + 3) / 4; q++, bordered += size.padded) {
        union { int8_t channel[4]; int32_t word; } zero = {{0, 0, 0, 0}};
        for (int i = 0; i < 4 && 4 * q + i < net->channels; i++) zero.channel[i] = words[2 * (4 * q + i) + 1];
        size_t from = part ? (first + 1) * size.row : 0, to = part + 1 < parts ? (last + 1) * size.row : size.padded;
        for (size_t i = from; i < to; i++) bordered[i] = zero.word;
        for (int i = 0; i < 4 && 4 * q + i < net->channels; i++) {
            int channel = 4 * q + i, offset = zero.channel[i];
            for (int row = first; row < last; row++) {
                const float *pixel = image + ((size_t)channel * net->height + row) * net->width;
                int8_t *out = (int8_t *)(bordered + (row + 1) * size.row + 1) + i;
                for (int column = 0; column < net->width; column++) {
                    float x = pixel[column] * inverse[2 * channel];
                    x = x > -512.0f ? x : -512.0f; /* what is no number, too */
                    int32_t level = rounded(x < 512.0f ? x : 512.0f) + offset;
                    out[4 * column] = level < -128 ? -128 : level > 127 ? 127 : level;
                }
            }
        }
    }
}

/* 2x2 average pooling of one plane, the rows from `row` to `last`. */
static void halve(const int8_t *x, image_size from, int8_t *y, image_size to, int row, int last) {
    for (; row < last; row++) {
        const int8_t *upper = x + (size_t)2 * row * from.width, *lower = upper + from.width;
        int8_t *out = y + (size_t)row * to.width;
        int i = 0;
#if defined(__aarch64__)
        for (; i + 8 <= to.width; i += 8) {
            int16x8_t four = vpadalq_s8(vpaddlq_s8(load(upper + 2 * i)), load(lower + 2 * i));
            vst1_s8(out + i, vrshrn_n_s16(four, 2));
        }
#endif
        for (; i < to.width; i++)
            out[i] = (upper[2 * i] + upper[2 * i + 1] + lower[2 * i] + lower[2 * i + 1] + 2) >> 2;
    }
}

/* Batch norm, ReLU and global average of one feature, in parts of 1 / AVERAGE. */
static int16_t average(const int8_t *plane, int positions, int low, int high) {
    int32_t sum = 0;
    int i = 0;
#if defined(__aarch64__)
    int32x4_t four = vdupq_n_s32(0);
    for (; i + 16 <= positions; i += 16)
        four = vpadalq_s16(four, vpaddlq_s8(below(above(load(plane + i), all(low)), all(high))));
    sum = vaddvq_s32(four);
#endif
    for (; i < positions; i++) {
        int x = plane[i] > low ? plane[i] : low;
        sum += x < high ? x : high;
    }
    int64_t twice = 2 * AVERAGE * (int64_t)sum + positions; /* rounded: half up */
    return twice >= 0 ? twice / (2 * positions) : -((2 * positions - 1 - twice) / (2 * positions));
}

/* Eight logits. words: biases and scales of all classes, then the weights of these: [input][class] of int16. */
static void classify(const int16_t *x, int inputs, const int32_t *bias, const float *scale, const int16_t *weights,
                     int classes, float *logits) {
    int32_t s[8];
    UNROLL for (int i = 0; i < 8; i++) s[i] = bias[i];
    for (int k = 0; k < inputs; k++, weights += 8) UNROLL for (int i = 0; i < 8; i++) s[i] += x[k] * weights[i];
    for (int i = 0; i < classes && i < 8; i++) logits[i] = (float)s[i] * scale[i];
}

/* One part of a run; all parts get the same arguments but for `part`, which is 0 to parts - 1. meet(place) returns
 * once all parts have called it. The workspace is that of condensenet_parts_workspace. */
void condensenet_part(const int32_t *model, const float *image, float *logits, float *workspace, int part, int parts,
                      void (*meet)(void *), void *place) {
    header net;
    memcpy(&net, model, sizeof net);
    const int32_t *word = model + sizeof net / 4;
    buffers b = buffers_of(&net);
    int8_t *x = (int8_t *)workspace, *other = x + up(b.features, 64);
    int32_t *bordered = (int32_t *)(other + up(b.features, 64)), *spare = bordered + up(b.bordered, 64) / 4;
    int16_t *averages = (int16_t *)(spare + up(b.bordered, 64) / 4);
    int8_t *own = (int8_t *)averages + up(2 * (size_t)net.classifier_inputs, 64);
    own += part * (up(b.panel, 64) + up(b.made, 64));
    scratch mine = {own, own + up(b.panel, 64), b.step};

    image_size size = stem_size(&net);
    int row, last, channels = net.stem;
    share_rows(net.height, part, parts, &row, &last);
    quantise(&net, size, word, image, bordered, row, last, part, parts);
    word += 2 * net.channels;
    if (parts > 1) meet(place);
    share_rows(size.height, part, parts, &row, &last);
    convolve_3x3((conv_3x3){size, up(net.channels, 4) / 4, net.stem, row, last, word}, bordered, x, net.stride);
    word += words_3x3(net.channels, net.stem, net.stride);
    for (int s = 0; s < net.stages; s++) {
        image_size before = size;
        size = stage_size(s, before);
        if (parts > 1) meet(place);
        share_rows(size.height, part, parts, &row, &last);
        if (s) {
            for (int c = 0; c < channels; c++) halve(x + c * before.plane, before, other + c * size.plane, size, row, last);
            int8_t *swap = x;
            x = other;
            other = swap;
        }
        int growth = net.stage[s][1], made = net.bottleneck * growth;
        int ins = made / net.groups_3x3, outs = growth / net.groups_3x3, quads = up(ins, 4) / 4;
        for (int twice = 0; twice < 2; twice++) {
            clear(twice ? spare : bordered, net.groups_3x3 * quads, size, row, last, part, parts);
        }
        for (int layer = 0; layer < net.stage[s][0]; layer++) {
            int kept = channels / net.condense;
            learned_group_conv(&net, size, channels, made / net.groups, x, word, mine, row, last, bordered);
            word += net.groups * words_1x1(kept, made / net.groups);
            if (parts > 1) meet(place);
            for (int g = 0; g < net.groups_3x3; g++) {
                convolve_3x3((conv_3x3){size, quads, outs, row, last, word}, bordered + g * quads * size.padded,
                             x + (channels + g * outs) * size.plane, 1);
                word += words_3x3(ins, outs, 1);
            }
            channels += growth;
            int32_t *swap = bordered; /* the other parts may still be reading this one */
            bordered = spare;
            spare = swap;
        }
    }
    if (parts > 1) meet(place);
    int inputs = net.classifier_inputs, share = (inputs + parts - 1) / parts;
    for (int k = part * share; k < inputs && k < (part + 1) * share; k++)
        averages[k] = average(x + word[3 * k] * size.plane, size.height * size.width, word[3 * k + 1], word[3 * k + 2]);
    if (parts > 1) meet(place);
    const int32_t *bias = word + 3 * inputs, *scale = bias + up(net.classes, 8), *weights = scale + up(net.classes, 8);
    for (int c = 8 * part; c < net.classes; c += 8 * parts)
        classify(averages, inputs, bias + c, (const float *)scale + c, (const int16_t *)(weights + c / 2 * inputs),
                 net.classes - c, logits + c);
}

/* Runs the network on one image (channels, height, width). The model must be one that condensenet_workspace accepts. */
void condensenet_run(const int32_t *model, const float *image, float *logits, float *workspace) {
    condensenet_part(model, image, logits, workspace, 0, 1, 0, 0);
}

/* ---- checking a model ------------------------------------------------------------------------------------ */

static int within(const int32_t *values, size_t count, int32_t low, int32_t high) {
    for (size_t i = 0; i < count; i++)
        if (values[i] < low || values[i] > high) return 0;
    return 1;
}

static int divides(int divisor, int value) { return value % divisor == 0; }

static int valid_header(const header *net) {
    if (net->magic != MAGIC || net->version != VERSION || !within(&net->channels, 12, 1, MOST)) return 0;
    if (net->stride > 2 || net->stages > MOST_STAGES || !within(net->stage[0], 2 * net->stages, 1, MOST)) return 0;
    image_size size = stem_size(net);
    int channels = net->stem;
    for (int s = 0; s < net->stages; s++) {
        int layers = net->stage[s][0], growth = net->stage[s][1], made = net->bottleneck * growth;
        if ((size.height >> s) < 1 || (size.width >> s) < 1 || made > MOST) return 0;
        if (!divides(net->groups, made) || !divides(net->groups_3x3, made)) return 0;
        if (!divides(net->groups_3x3, growth)) return 0;
        if (!divides(net->condense, channels) || (layers > 1 && !divides(net->condense, growth))) return 0;
        if ((int64_t)channels + (int64_t)layers * growth > MOST) return 0;
        channels += layers * growth;
    }
    return workspace_bytes(net, MOST_PARTS) < (size_t)4 * MOST_WORDS && net->classifier_inputs <= channels;
}

/* Biases, then fractions, then weights of which none is -128. */
static int valid_tile(const int32_t *words, size_t outs, size_t weights) {
    if (!within(words, outs, -(1 << 30), 1 << 30) || !within(words + outs, outs, 0, INT32_MAX)) return 0;
    const int8_t *weight = (const int8_t *)(words + 2 * outs);
    for (size_t i = 0; i < 4 * weights; i++)
        if (weight[i] == -128) return 0;
    return 1;
}

static int valid_3x3(const int32_t *words, int ins, int outs, int stride) {
    for (int made; outs > 0; outs -= made) {
        made = outs_3x3(outs, stride);
        size_t weights = up(ins, 4) / 4 * weights_3x3(made);
        if (!valid_tile(words, up(made, 4), weights)) return 0;
        words += 2 * up(made, 4) + weights;
    }
    return 1;
}

static int valid_1x1(const int32_t *words, int kept, int outs, int channels) {
    size_t quads = up(kept, 4) / 4;
    if (!within(words, 1, 0, quads) || !within(words + 1, 4 * quads, 0, channels - 1)) return 0;
    words += 1 + 6 * quads;
    for (int out = 0; out < outs; out += 4, words += tile_words(quads))
        if (!valid_tile(words, 4, 4 * quads)) return 0;
    return 1;
}

static int valid_classifier(const header *net, const int32_t *words, int channels) {
    int inputs = net->classifier_inputs, classes = up(net->classes, 8);
    for (int k = 0; k < inputs; k++)
        if (!within(words + 3 * k, 1, 0, channels - 1) || !within(words + 3 * k + 1, 2, -128, 127)) return 0;
    const int32_t *bias = words + 3 * inputs;
    for (int c = 0; c < classes; c++) {
        const int16_t *weight = (const int16_t *)(bias + 2 * classes + c / 8 * 4 * (size_t)inputs) + c % 8;
        int64_t most = 0;
        for (int k = 0; k < inputs; k++) most += 128 * AVERAGE * (int64_t)(weight[8 * k] < 0 ? -weight[8 * k] : weight[8 * k]);
        if (most + (bias[c] < 0 ? -(int64_t)bias[c] : bias[c]) > INT32_MAX) return 0;
    }
    return 1;
}

static int valid_model(const header *net, const int32_t *model, size_t words) {
    size_t at = sizeof *net / 4 + 2 * (size_t)net->channels, stem = words_3x3(net->channels, net->stem, net->stride);
    if (at + stem > words || !valid_3x3(model + at, net->channels, net->stem, net->stride)) return 0;
    for (int c = 0; c < net->channels; c++)
        if (!within(model + sizeof *net / 4 + 2 * c + 1, 1, -128, 127)) return 0;
    at += stem;
    int channels = net->stem;
    for (int s = 0; s < net->stages; s++) {
        int growth = net->stage[s][1], made = net->bottleneck * growth, outs = made / net->groups;
        size_t of_3x3 = words_3x3(made / net->groups_3x3, growth / net->groups_3x3, 1);
        for (int layer = 0; layer < net->stage[s][0]; layer++, channels += growth) {
            int kept = channels / net->condense;
            size_t of_group = words_1x1(kept, outs);
            if (at + net->groups * of_group + net->groups_3x3 * of_3x3 > words) return 0;
            for (int g = 0; g < net->groups; g++, at += of_group)
                if (!valid_1x1(model + at, kept, outs, channels)) return 0;
            for (int g = 0; g < net->groups_3x3; g++, at += of_3x3)
                if (!valid_3x3(model + at, made / net->groups_3x3, growth / net->groups_3x3, 1)) return 0;
        }
    }
    return at + words_classifier(net) == words && valid_classifier(net, model + at, channels);
}

/* Returns how many floats of workspace a run in so many parts needs; 0 when `model` is not a valid model. */
size_t condensenet_parts_workspace(const int32_t *model, size_t words, int parts) {
    header net;
    if (words < sizeof net / 4 || words > MOST_WORDS || parts < 1 || parts > MOST_PARTS) return 0;
    memcpy(&net, model, sizeof net);
    if (!valid_header(&net) || !valid_model(&net, model, words)) return 0;
    return up(workspace_bytes(&net, parts), 4) / 4;
}

/* Returns how many floats of workspace a run needs; 0 when `model` of so many 4-byte words is not a valid model. */
size_t condensenet_workspace(const int32_t *model, size_t words) {
    return condensenet_parts_workspace(model, words, 1);
}
