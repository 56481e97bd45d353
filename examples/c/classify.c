/* Prints the class of each image by a bundle's network, without Python or any library.
 *
 *   classify weights.bin scaling.bin photo.ppm ...
 *
 * The two .bin files and the two .c files to compile with are those of a bundle's model.native.zip, written with
 * `condensery pick --bake-preprocessing`; docs/deploying-in-c.md goes through it. Images are binary PGM (P5) for a
 * network of greys and PPM (P6) for one of colours, 8 bits a channel; they are cropped and resized as in training.
 */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

size_t condensenet_workspace(const int32_t *model, size_t words);
void condensenet_run_pixels(const int32_t *model, const float *scaling, const void *pixels, int bytes, float *logits,
                            float *workspace, float *image);

/* Where a network's header has its input and its number of classes. */
enum { CHANNELS = 2, HEIGHT = 3, WIDTH = 4, CLASSES = 11 };

struct image {
    int width, height, channels;
    uint8_t *pixels; /* height x width x channels */
};

/* Returns a whole file and its size in words of 4 bytes; NULL if it can't be read. */
static void *read_words(const char *name, size_t *words) {
    FILE *file = fopen(name, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    rewind(file);
    *words = bytes > 0 ? (size_t)bytes / 4 : 0;
    void *content = malloc(4 * *words + 4);
    if (content && fread(content, 4, *words, file) != *words) {
        free(content);
        content = NULL;
    }
    fclose(file);
    return content;
}

/* Returns the next number of a PNM header, behind spaces and comments; -1 if there is none. */
static int header_number(FILE *file) {
    int c, number;
    while ((c = fgetc(file)) == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '#')
        if (c == '#')
            while ((c = fgetc(file)) != '\n' && c != EOF) {
            }
    ungetc(c, file);
    return fscanf(file, "%d", &number) == 1 ? number : -1;
}

/* Reads a binary PGM or PPM of 8 bits; returns 0 if it is something else. */
static int read_image(const char *name, struct image *image) {
    FILE *file = fopen(name, "rb");
    if (!file) return 0;
    int p = fgetc(file), kind = fgetc(file);
    image->channels = kind == '6' ? 3 : 1;
    image->width = header_number(file);
    image->height = header_number(file);
    int most = header_number(file), ok = 0;
    fgetc(file); /* the one space before the pixels */
    if (p == 'P' && (kind == '5' || kind == '6') && most == 255 && image->width > 0 && image->height > 0 &&
        image->width <= 1 << 15 && image->height <= 1 << 15) {
        size_t size = (size_t)image->width * image->height * image->channels;
        image->pixels = malloc(size);
        ok = image->pixels && fread(image->pixels, 1, size, file) == size;
    }
    fclose(file);
    return ok;
}

/* One line: of `count` values, `step` apart, the part from `start` on, `extent` long, becomes `size` values. */
static void resize_line(const uint8_t *in, int count, int step, double start, double extent, uint8_t *out, int size,
                        int out_step) {
    double scale = extent / size, reach = scale > 1 ? scale : 1; /* of the triangle, to either side */
    for (int i = 0; i < size; i++) {
        double centre = start + (i + 0.5) * scale, sum = 0, weights = 0;
        int first = (int)fmax(centre - reach + 0.5, 0), end = (int)fmin(centre + reach + 0.5, count);
        for (int k = first; k < end; k++) {
            double weight = fmax(1 - fabs((k + 0.5 - centre) / reach), 0);
            sum += weight * in[(size_t)k * step];
            weights += weight;
        }
        out[(size_t)i * out_step] = (uint8_t)(sum / weights + 0.5);
    }
}

/* Crops to the middle and resizes; small: channels x height x width. Returns 0 without memory. */
static int resize(const struct image *image, int height, int width, uint8_t *small) {
    double scale = fmin((double)image->width / width, (double)image->height / height);
    double crop_width = scale * width, crop_height = scale * height;
    uint8_t *rows = malloc((size_t)image->height * width);
    if (!rows) return 0;
    for (int c = 0; c < image->channels; c++, small += (size_t)height * width) {
        for (int y = 0; y < image->height; y++)
            resize_line(image->pixels + (size_t)y * image->width * image->channels + c, image->width, image->channels,
                        (image->width - crop_width) / 2, crop_width, rows + (size_t)y * width, width, 1);
        for (int x = 0; x < width; x++)
            resize_line(rows + x, image->height, width, (image->height - crop_height) / 2, crop_height, small + x,
                        height, width);
    }
    free(rows);
    return 1;
}

static void print_class(const char *name, const float *logits, int classes) {
    int best = 0;
    double sum = 0;
    for (int i = 1; i < classes; i++)
        if (logits[i] > logits[best]) best = i;
    for (int i = 0; i < classes; i++) sum += exp((double)logits[i] - logits[best]);
    printf("%s: class %d (%.1f%%), logits", name, best, 100 / sum);
    for (int i = 0; i < classes; i++) printf(" %.5g", logits[i]);
    printf("\n");
}

int main(int count, char **words) {
    size_t size = 0, scaling_size = 0;
    int32_t *model = count > 3 ? read_words(words[1], &size) : NULL;
    float *scaling = count > 3 ? read_words(words[2], &scaling_size) : NULL;
    size_t floats = model && scaling ? condensenet_workspace(model, size) : 0;
    if (floats == 0 || scaling_size < 2 + 2 * (size_t)model[CHANNELS]) {
        fprintf(stderr, "usage: classify weights.bin scaling.bin IMAGE.ppm ...; the files must be a bundle's\n");
        return 2;
    }
    int channels = model[CHANNELS], height = model[HEIGHT], width = model[WIDTH], failed = 0;
    size_t pixels = (size_t)channels * height * width;
    float *workspace = malloc(4 * floats), *image = malloc(4 * pixels), *logits = malloc(4 * (size_t)model[CLASSES]);
    uint8_t *small = malloc(pixels);
    if (!workspace || !image || !logits || !small) return 1;
    for (int i = 3; i < count; i++) {
        struct image read = {0, 0, 0, NULL};
        if (read_image(words[i], &read) && read.channels == channels && resize(&read, height, width, small)) {
            condensenet_run_pixels(model, scaling, small, 1, logits, workspace, image);
            print_class(words[i], logits, model[CLASSES]);
        } else {
            fprintf(stderr, "%s: not a binary %s of 8 bits\n", words[i], channels == 1 ? "PGM" : "PPM");
            failed = 1;
        }
        free(read.pixels);
    }
    return failed;
}
