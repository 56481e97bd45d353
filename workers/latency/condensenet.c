/* Runs a deployed CondenseNet on one ARM core, in fp32: the whole network, with no library but the C one.
 *
 *     size_t words = condensenet_workspace(model, size_in_words);   // 0: not a valid model; check once
 *     condensenet_run(model, image, logits, workspace);             // workspace: that many floats
 *
 * Build: cc -O3 -shared -fPIC condensenet.c (tried: gcc 12, clang 22; aarch64, x86-64). Little-endian.
 * Reentrant: nothing is allocated and nothing global is written; each thread needs a workspace of its own.
 *
 * Notable choices:
 * - A dense layer's gather, batch norm, ReLU, 1x1 group convolution, second batch norm, ReLU and permutation are one
 *   pass. Gathering is reading through row pointers. For s > 0, relu(s x + b) = s max(x, -b/s) + b, for s < 0 it is
 *   s min(x, -b/s) + b; s and b go into weights and bias, so that batch norm and ReLU cost one instruction.
 * - All features of a stage live in one buffer; a layer writes its new channels behind the others, so nothing is
 *   concatenated. A channel is a plane of `plane` floats, a cache line more than it needs, so that the planes that
 *   a column of tiles reads don't all compete for the same lines of the cache.
 * - The 1x1 writes into planes with a border of zeros, which the 3x3 reads without looking for the image's edge.
 * - Tiles of outputs stay in registers; weights come in the order in which they are read.
 * - The exporter (workers/export/native.py) writes the model; its docstring describes the format.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define TILE 16 /* most rows of vectors that a tile keeps in registers; two vectors wide */

typedef float vec __attribute__((vector_size(16)));
typedef float unaligned_vec __attribute__((vector_size(16), aligned(4), may_alias));
typedef vec tile[TILE][2];

INLINE vec load(const float *from) { return *(const unaligned_vec *)from; }
INLINE void store(float *to, vec x) { *(unaligned_vec *)to = x; }
static void __attribute__((noinline)) store_some(float *to, vec x, int count) { memcpy(to, &x, sizeof(float) * count); }
INLINE void store_within(float *to, vec x, int left) { /* no more than `left` of its four floats */
    if (left >= 4) store(to, x);
    else if (left > 0) store_some(to, x, left);
}
INLINE vec all(float x) { return (vec){x, x, x, x}; }

#if defined(__ARM_NEON)
#include <arm_neon.h>
INLINE vec larger(vec a, vec b) { return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
INLINE vec smaller(vec a, vec b) { return (vec)vminq_f32((float32x4_t)a, (float32x4_t)b); }
#elif defined(__SSE__)
#include <immintrin.h>
INLINE vec larger(vec a, vec b) { return (vec)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vec smaller(vec a, vec b) { return (vec)_mm_min_ps((__m128)a, (__m128)b); }
#else
INLINE vec larger(vec a, vec b) { UNROLL for (int i = 0; i < 4; i++) a[i] = a[i] > b[i] ? a[i] : b[i]; return a; }
INLINE vec smaller(vec a, vec b) { UNROLL for (int i = 0; i < 4; i++) a[i] = a[i] < b[i] ? a[i] : b[i]; return a; }
#endif

/* ---- the model's header and the sizes that follow from it ------------------------------------------------ */

enum { MAGIC = 0x4e444e43, VERSION = 1, MOST = 4096, MOST_STAGES = 16, MOST_WORDS = 1 << 28 };

typedef struct {
    int32_t magic, version, channels, height, width, stride, stem, groups, condense, bottleneck, groups_3x3, classes;
    int32_t classifier_inputs, stages, stage[MOST_STAGES][2]; /* layers, growth */
} header;

typedef struct {
    int height, width;
    size_t plane; /* floats of one feature channel */
    size_t row, padded; /* floats of one row and one channel of the planes with a border */
} image_size;

static size_t up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

static image_size size_of(int height, int width, int stride) {
    size_t row = up(width, 8) * stride + 4, rows = up(height, 4) * stride + 2;
    return (image_size){height, width, up((size_t)height * width, 16) + 16, row, up(rows * row, 16) + 16};
}

static image_size stem_size(const header *net) {
    return size_of((net->height - 1) / net->stride + 1, (net->width - 1) / net->stride + 1, net->stride);
}

/* Outputs that one tile makes when `left` are to do: of a 1x1 and of a 3x3 convolution. */
static int rows_1x1(int left) { return left >= 16 ? 16 : left > 4 ? 8 : 4; }
static int rows_3x3(int left, int stride) { return left > 4 ? 8 : left > 2 || stride == 2 ? 4 : 2; }

static size_t words_1x1(int kept, int outs) {
    size_t words = 0;
    for (int rows; outs > 0; outs -= rows) rows = rows_1x1(outs), words += rows + (size_t)kept * (4 + rows);
    return words;
}

static size_t words_3x3(int ins, int outs, int stride) {
    size_t words = 0;
    for (int rows; outs > 0; outs -= rows)
        rows = rows_3x3(outs, stride), words += (size_t)ins * (rows == 2 ? 20 : 9 * rows);
    return words;
}

/* ---- the learned group convolution ----------------------------------------------------------------------- */

/* Adds the columns from `row` to `end` to a tile of R outputs x 4V positions. Of each column the weights hold its
 * limit four times, then R weights. Returns where the next column's weights are. */
INLINE const float *add_columns(const float *const *row, const float *const *end, const float *weights, size_t at,
                                int above, tile sums, int R, int V) {
    _Pragma("GCC unroll 2") for (; row != end; row++, weights += 4 + R) {
        vec x[2], limit = load(weights);
        UNROLL for (int v = 0; v < V; v++) {
            x[v] = load(*row + at + 4 * v);
            x[v] = above ? larger(limit, x[v]) : smaller(limit, x[v]);
        }
        UNROLL for (int r = 0; r < R; r += 4) {
            vec w = load(weights + 4 + r);
            UNROLL for (int i = 0; i < 4; i++) UNROLL for (int v = 0; v < V; v++) sums[r + i][v] += x[v] * w[i];
        }
    }
    return weights;
}

typedef struct {
    image_size size;
    int kept, above; /* columns of the group; how many of them, the first ones, are limited from below */
    int outs; /* outputs to do, those of this tile first */
    size_t step; /* floats from one output of the group to the next */
} group;

/* R outputs (fewer if fewer are to do) of one group, at every position. */
INLINE void conv_1x1_tiles(const group *g, const float *const *rows, const float *weights, float *y, int R, int V) {
    int width = g->size.width, positions = g->size.height * width, column = 0;
    float *target = y; /* of the position, in the first output */
    for (int at = 0; at < positions; at += 4 * V) {
        tile sums;
        UNROLL for (int r = 0; r < R; r += 4) {
            vec bias = load(weights + r);
            UNROLL for (int i = 0; i < 4; i++) UNROLL for (int v = 0; v < V; v++) sums[r + i][v] = all(bias[i]);
        }
        const float *rest = add_columns(rows, rows + g->above, weights + R, at, 1, sums, R, V);
        add_columns(rows + g->above, rows + g->kept, rest, at, 0, sums, R, V);
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) sums[r][v] = larger(all(0), sums[r][v]);
        if (column + 4 * V <= width && R <= g->outs) {
            UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)
                store(target + r * g->step + 4 * v, sums[r][v]);
            target += 4 * V;
            column += 4 * V;
        } else { /* the tile goes on in the next row, or has outputs too many: float by float */
            float flat[TILE][8];
            UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) store(flat[r] + 4 * v, sums[r][v]);
            for (int i = 0; i < 4 * V && at + i < positions; i++) {
                if (column == width) target += g->size.row - width, column = 0;
                for (int r = 0; r < R && r < g->outs; r++) target[r * g->step] = flat[r][i];
                target++, column++;
            }
        }
        if (column == width) target += g->size.row - width, column = 0;
    }
}

/* Feature planes x -> the inside of the planes with a border, in training order. `index` holds the columns of all
 * groups, then how many of each group's are limited from below. */
static void learned_group_conv(const header *net, image_size size, int channels, int outs, const float *x,
                               const int32_t *index, const float *weights, float *bordered) {
    const float *rows[MOST];
    group g = {.size = size, .kept = channels / net->condense, .step = net->groups * size.padded};
    for (int n = 0; n < net->groups; n++) {
        for (int k = 0; k < g.kept; k++) rows[k] = x + index[n * g.kept + k] * size.plane;
        g.above = index[net->groups * g.kept + n];
        float *y = bordered + n * size.padded + size.row + 1;
        for (g.outs = outs; g.outs > 0;) {
            int made = rows_1x1(g.outs);
            if (made == 16) conv_1x1_tiles(&g, rows, weights, y, 16, 1);
            else if (made == 8) conv_1x1_tiles(&g, rows, weights, y, 8, 2);
            else conv_1x1_tiles(&g, rows, weights, y, 4, 2);
            weights += made + (size_t)g.kept * (4 + made);
            y += made * g.step;
            g.outs -= made;
        }
    }
}

/* ---- the 3x3 convolution --------------------------------------------------------------------------------- */

typedef struct {
    image_size size; /* of the output; row and padded are those of the input with its border */
    int ins, outs;
    const float *weights;
} conv_3x3;

/* 4V outputs (V of 1 or 2), in the lanes of vectors, at P positions of a row; S is the stride. */
INLINE void outputs_in_lanes(const conv_3x3 c, const float *x, float *y, int V, int P, int S) {
    for (int row = 0; row < c.size.height; row++) {
        for (int column = 0; column < c.size.width; column += P) {
            tile sums;
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < V; v++) sums[p][v] = all(0);
            const float *from = x + (size_t)row * S * c.size.row + column * S, *weights = c.weights;
            for (int in = 0; in < c.ins; in++, from += c.size.padded) {
                _Pragma("GCC unroll 1") for (int dy = 0; dy < 3; dy++, weights += 12 * V) {
                    vec xs[9];
                    UNROLL for (int i = 0; i < (P - 1) * S + 3; i += 4) xs[i / 4] = load(from + dy * c.size.row + i);
                    UNROLL for (int dx = 0; dx < 3; dx++) UNROLL for (int v = 0; v < V; v++) {
                        vec w = load(weights + 4 * (dx * V + v));
                        UNROLL for (int p = 0; p < P; p++) sums[p][v] += w * xs[(p * S + dx) / 4][(p * S + dx) % 4];
                    }
                }
            }
            float *to = y + (size_t)row * c.size.width + column;
            UNROLL for (int out = 0; out < 4 * V; out++) {
                int v = out / 4, i = out % 4;
                if (out >= c.outs) break;
                UNROLL for (int p = 0; p < P; p += 4) {
                    vec four = {sums[p][v][i], sums[p + 1][v][i], sums[p + 2][v][i], sums[p + 3][v][i]};
                    store_within(to + out * c.size.plane + p, four, c.size.width - column - p);
                }
            }
        }
    }
}

/* 2 outputs at 4 rows of 8 positions; positions in the lanes. Of each input the weights hold 9 pairs and 2 zeros. */
static __attribute__((noinline)) void two_outputs(const conv_3x3 c, const float *x, float *y) {
    for (int row = 0; row < c.size.height; row += 4) {
        for (int column = 0; column < c.size.width; column += 8) {
            vec sums[4][2][2];
            UNROLL for (int i = 0; i < 16; i++) sums[i / 4][i / 2 % 2][i % 2] = all(0);
            const float *from = x + (size_t)row * c.size.row + column, *weights = c.weights;
            for (int in = 0; in < c.ins; in++, from += c.size.padded, weights += 20) {
                vec w[5];
                UNROLL for (int i = 0; i < 5; i++) w[i] = load(weights + 4 * i);
                UNROLL for (int dx = 0; dx < 3; dx++) UNROLL for (int line = 0; line < 6; line++) {
                    const float *at = from + line * c.size.row + dx;
                    vec left = load(at), right = load(at + 4);
                    UNROLL for (int dy = 0; dy < 3; dy++) UNROLL for (int out = 0; out < 2; out++) {
                        int r = line - dy, n = (dy * 3 + dx) * 2 + out;
                        if (r < 0 || r > 3) continue;
                        sums[r][out][0] += left * w[n / 4][n % 4];
                        sums[r][out][1] += right * w[n / 4][n % 4];
                    }
                }
            }
            UNROLL for (int i = 0; i < 16; i++) {
                int r = i / 4, out = i / 2 % 2, p = column + i % 2 * 4;
                if (row + r >= c.size.height || out >= c.outs) continue;
                float *to = y + out * c.size.plane + (size_t)(row + r) * c.size.width + p;
                store_within(to, sums[r][out][i % 2], c.size.width - p);
            }
        }
    }
}

/* One function each, so that a compiler gives each all registers. */
#define IN_LANES(name, V, P, S) \
    static __attribute__((noinline)) void name(const conv_3x3 c, const float *x, float *y) { \
        outputs_in_lanes(c, x, y, V, P, S);                                                  \
    }
IN_LANES(lanes_8, 2, 8, 1)
IN_LANES(lanes_8_stride_2, 2, 8, 2)
IN_LANES(lanes_4, 1, 8, 1)
IN_LANES(lanes_4_wide, 1, 16, 1)
IN_LANES(lanes_4_stride_2, 1, 8, 2)

/* Planes with a border x -> feature planes y. */
static void convolve_3x3(conv_3x3 c, const float *x, float *y, int stride) {
    while (c.outs > 0) {
        int made = rows_3x3(c.outs, stride);
        if (made == 8 && stride == 2) lanes_8_stride_2(c, x, y);
        else if (made == 8) lanes_8(c, x, y);
        else if (made == 4 && stride == 2) lanes_4_stride_2(c, x, y);
        else if (made == 4 && c.size.width % 16) lanes_4(c, x, y);
        else if (made == 4) lanes_4_wide(c, x, y);
        else two_outputs(c, x, y);
        c.weights += (size_t)c.ins * (made == 2 ? 20 : 9 * made);
        y += made * c.size.plane;
        c.outs -= made;
    }
}

/* ---- the network ----------------------------------------------------------------------------------------- */

/* 2x2 average pooling of one plane. */
static void halve(const float *x, image_size from, float *y, image_size to) {
    for (int row = 0; row < to.height; row++) {
        const float *above = x + (size_t)2 * row * from.width, *below = above + from.width;
        for (int i = 0; i < to.width; i++)
            y[(size_t)row * to.width + i] = 0.25f * (above[2 * i] + above[2 * i + 1] + below[2 * i] + below[2 * i + 1]);
    }
}

/* Batch norm, ReLU and global average of the features that the classifier reads, then the classifier. */
static void classify(const header *net, image_size size, const float *x, const int32_t *index, const float *weights,
                     float *logits) {
    const float *scale = weights, *shift = scale + net->classifier_inputs, *column = shift + net->classifier_inputs;
    int positions = size.height * size.width;
    memcpy(logits, column + (size_t)net->classifier_inputs * net->classes, sizeof(float) * net->classes);
    for (int k = 0; k < net->classifier_inputs; k++, column += net->classes) {
        const float *plane = x + index[k] * size.plane;
        vec sums = all(0);
        int i = 0;
        for (; i + 4 <= positions; i += 4) sums += larger(all(0), load(plane + i) * scale[k] + shift[k]);
        float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        for (; i < positions; i++) sum += larger(all(0), all(plane[i] * scale[k] + shift[k]))[0];
        for (int c = 0; c < net->classes; c++) logits[c] += sum / positions * column[c];
    }
}

/* The features' two buffers and the planes with a border, in floats; `channels` returns the features at the end. */
static void buffer_words(const header *net, size_t *features, size_t *bordered, int *channels) {
    image_size size = stem_size(net);
    *channels = net->stem;
    *bordered = net->channels * size.padded;
    *features = 0;
    for (int s = 0; s < net->stages; s++) {
        size = s ? size_of(size.height / 2, size.width / 2, 1) : size_of(size.height, size.width, 1);
        *channels += net->stage[s][0] * net->stage[s][1];
        size_t stage_features = *channels * size.plane, made = net->bottleneck * net->stage[s][1] * size.padded;
        if (stage_features > *features) *features = stage_features;
        if (made > *bordered) *bordered = made;
    }
}

/* Runs the network on one image (channels, height, width). The model must be one that condensenet_workspace accepts. */
void condensenet_run(const int32_t *model, const float *image, float *logits, float *workspace) {
    header net;
    memcpy(&net, model, sizeof net);
    const int32_t *word = model + sizeof net / 4;
    size_t features, bordered_words;
    int channels;
    buffer_words(&net, &features, &bordered_words, &channels);
    float *x = workspace, *other = x + features, *bordered = other + features;
    memset(bordered, 0, sizeof(float) * bordered_words);
    image_size size = stem_size(&net);
    for (int c = 0; c < net.channels; c++)
        for (int row = 0; row < net.height; row++)
            memcpy(bordered + c * size.padded + (row + 1) * size.row + 1,
                   image + ((size_t)c * net.height + row) * net.width, sizeof(float) * net.width);
    convolve_3x3((conv_3x3){size, net.channels, net.stem, (const float *)word}, bordered, x, net.stride);
    word += words_3x3(net.channels, net.stem, net.stride);
    channels = net.stem;
    for (int s = 0; s < net.stages; s++) {
        image_size before = size;
        size = s ? size_of(size.height / 2, size.width / 2, 1) : size_of(size.height, size.width, 1);
        if (s) {
            for (int c = 0; c < channels; c++) halve(x + c * before.plane, before, other + c * size.plane, size);
            float *swap = x;
            x = other;
            other = swap;
        }
        int growth = net.stage[s][1], made = net.bottleneck * growth;
        int ins = made / net.groups_3x3, outs = growth / net.groups_3x3;
        memset(bordered, 0, sizeof(float) * made * size.padded);
        for (int layer = 0; layer < net.stage[s][0]; layer++) {
            int kept = channels / net.condense;
            const int32_t *index = word;
            word += net.groups * kept + net.groups;
            learned_group_conv(&net, size, channels, made / net.groups, x, index, (const float *)word, bordered);
            word += net.groups * words_1x1(kept, made / net.groups);
            for (int g = 0; g < net.groups_3x3; g++) {
                convolve_3x3((conv_3x3){size, ins, outs, (const float *)word}, bordered + g * ins * size.padded,
                             x + (channels + g * outs) * size.plane, 1);
                word += words_3x3(ins, outs, 1);
            }
            channels += growth;
        }
    }
    classify(&net, size, x, word, (const float *)word + net.classifier_inputs, logits);
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
    size_t features, bordered;
    buffer_words(net, &features, &bordered, &channels);
    return features + bordered < MOST_WORDS && net->classifier_inputs <= channels;
}

/* Returns how many floats of workspace a run needs; 0 when `model` of so many 4-byte words is not a valid model. */
size_t condensenet_workspace(const int32_t *model, size_t words) {
    header net;
    if (words < sizeof net / 4 || words > MOST_WORDS) return 0;
    memcpy(&net, model, sizeof net);
    if (!valid_header(&net)) return 0;
    size_t at = sizeof net / 4 + words_3x3(net.channels, net.stem, net.stride);
    int channels = net.stem;
    for (int s = 0; s < net.stages; s++) {
        int growth = net.stage[s][1], made = net.bottleneck * growth;
        for (int layer = 0; layer < net.stage[s][0]; layer++, channels += growth) {
            int kept = channels / net.condense;
            size_t columns = (size_t)net.groups * kept;
            if (at + columns + net.groups > words || !within(model + at, columns, 0, channels - 1)) return 0;
            if (!within(model + at + columns, net.groups, 0, kept)) return 0;
            at += columns + net.groups + net.groups * words_1x1(kept, made / net.groups);
            at += net.groups_3x3 * words_3x3(made / net.groups_3x3, growth / net.groups_3x3, 1);
        }
    }
    size_t inputs = net.classifier_inputs;
    if (at + inputs > words || !within(model + at, inputs, 0, channels - 1)) return 0;
    if (at + inputs * (3 + (size_t)net.classes) + net.classes != words) return 0;
    size_t features, bordered;
    buffer_words(&net, &features, &bordered, &channels);
    return 2 * features + bordered;
}
