/* condensenet.c in parts that several threads can do: each takes some rows of every layer, in the same order of
 * operations, so that logits have the same bits with any number of parts. Build it in place of condensenet.c.
 *
 * A layer writes into one of two buffers with a border, in turns: while some parts already write the next layer's, the
 * others may still read this one's. So all parts meet once in a layer.
 */

#include "condensenet.c"

enum { MOST_PARTS = 64, MOST_LINES_BEHIND = 8 }; /* a tile at a part's end reads so many lines more than there may be */

/* The floats of each buffer with a border: another line or two for tiles that begin at any even row. */
static size_t bordered_floats(const header *net, size_t bordered) {
    size_t row = stem_size(net).row;
    for (int s = 0, width = stem_size(net).width; s < net->stages; s++, width /= 2)
        if (size_of(1, width, 1).row > row) row = size_of(1, width, 1).row;
    return up(bordered + MOST_LINES_BEHIND * row, 16);
}

static void share_rows(int height, int part, int parts, int *row, int *last) {
    int each = up((height + parts - 1) / parts, height > 2 * parts ? 4 : 2);
    if (parts == 1) each = height;
    *row = part * each < height ? part * each : height;
    *last = *row + each < height ? *row + each : height;
}

/* The image, or part of it: as many rows as are to do, and everything else as it is. */
static image_size rows_of(image_size size, int row, int last) {
    size.height = last - row;
    return size;
}

/* Zeros into this part's lines of some planes with a border; the first and the last part have those at the ends. */
static void clear(float *bordered, size_t planes, image_size size, int row, int last, int part, int parts) {
    size_t from = part ? (row + 1) * size.row : 0, to = part + 1 < parts ? (last + 1) * size.row : size.padded;
    for (size_t p = 0; p < planes; p++) memset(bordered + p * size.padded + from, 0, sizeof(float) * (to - from));
}

void condensenet_part(const int32_t *model, const float *image, float *logits, float *workspace, int part, int parts,
                      void (*meet)(void *), void *place) {
    header net;
    memcpy(&net, model, sizeof net);
    const int32_t *word = model + sizeof net / 4;
    size_t features, bordered_words;
    int channels, row, last;
    buffer_words(&net, &features, &bordered_words, &channels);
    bordered_words = bordered_floats(&net, bordered_words);
    float *x = workspace, *other = x + features, *bordered = other + features, *spare = bordered + bordered_words;
    image_size size = stem_size(&net);
    share_rows(net.height, part, parts, &row, &last);
    clear(bordered, net.channels, size, row, last, part, parts);
    for (int c = 0; c < net.channels; c++)
        for (int line = row; line < last; line++)
            memcpy(bordered + c * size.padded + (line + 1) * size.row + 1,
                   image + ((size_t)c * net.height + line) * net.width, sizeof(float) * net.width);
    if (parts > 1) meet(place);
    share_rows(size.height, part, parts, &row, &last);
    conv_3x3 stem = {rows_of(size, row, last), net.channels, net.stem, (const float *)word};
    convolve_3x3(stem, bordered + row * net.stride * size.row, x + (size_t)row * size.width, net.stride);
    word += words_3x3(net.channels, net.stem, net.stride);
    channels = net.stem;
    for (int s = 0; s < net.stages; s++) {
        image_size before = size;
        size = s ? size_of(size.height / 2, size.width / 2, 1) : size_of(size.height, size.width, 1);
        if (parts > 1) meet(place);
        share_rows(size.height, part, parts, &row, &last);
        image_size mine = rows_of(size, row, last);
        size_t at = (size_t)row * size.width;
        if (s) {
            for (int c = 0; c < channels; c++)
                halve(x + c * before.plane + (size_t)2 * row * before.width, before, other + c * size.plane + at, mine);
            float *swap = x;
            x = other;
            other = swap;
        }
        int growth = net.stage[s][1], made = net.bottleneck * growth;
        int ins = made / net.groups_3x3, outs = growth / net.groups_3x3;
        clear(bordered, made, size, row, last, part, parts);
        clear(spare, made, size, row, last, part, parts);
        for (int layer = 0; layer < net.stage[s][0]; layer++) {
            int kept = channels / net.condense;
            const int32_t *index = word;
            word += net.groups * kept + net.groups;
            if (row < last)
                learned_group_conv(&net, mine, channels, made / net.groups, x + at, index, (const float *)word,
                                   bordered + row * size.row);
            word += net.groups * words_1x1(kept, made / net.groups);
            if (parts > 1) meet(place);
            for (int g = 0; g < net.groups_3x3; g++) {
                convolve_3x3((conv_3x3){mine, ins, outs, (const float *)word},
                             bordered + g * ins * size.padded + row * size.row,
                             x + (channels + g * outs) * size.plane + at, 1);
                word += words_3x3(ins, outs, 1);
            }
            channels += growth;
            float *swap = bordered;
            bordered = spare;
            spare = swap;
        }
    }
    if (parts > 1) meet(place);
    if (part == 0) classify(&net, size, x, word, (const float *)word + net.classifier_inputs, logits);
}

/* Returns how many floats of workspace a run in so many parts needs; 0 when `model` is not a valid model. */
size_t condensenet_parts_workspace(const int32_t *model, size_t words, int parts) {
    header net;
    size_t features, bordered;
    int channels;
    if (parts < 1 || parts > MOST_PARTS || condensenet_workspace(model, words) == 0) return 0;
    memcpy(&net, model, sizeof net);
    buffer_words(&net, &features, &bordered, &channels);
    return 2 * (features + bordered_floats(&net, bordered));
}
