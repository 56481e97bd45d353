/* Runs a network of condensenet.c on pixels as they are decoded: scales them first.
 *
 * scaling: low, high, then for each channel scale and shift; a pixel p becomes min(max(p, low), high) * scale + shift.
 * pixels: channels, height, width, of `bytes` bytes each (1: uint8, 2: uint16). image: memory for as many floats.
 * All other arguments are those of condensenet_run.
 */

#include <stddef.h>
#include <stdint.h>

void condensenet_run(const int32_t *model, const float *image, float *logits, float *workspace);

void condensenet_run_pixels(const int32_t *model, const float *scaling, const void *pixels, int bytes, float *logits,
                            float *workspace, float *image) {
    const int32_t channels = model[2], plane = model[3] * model[4];
    for (int32_t c = 0; c < channels; c++) {
        for (int32_t i = 0; i < plane; i++) {
            const size_t at = (size_t)c * plane + i;
            float p = bytes == 1 ? ((const uint8_t *)pixels)[at] : ((const uint16_t *)pixels)[at];
            p = p < scaling[0] ? scaling[0] : p > scaling[1] ? scaling[1] : p;
            image[at] = p * scaling[2 + 2 * c] + scaling[3 + 2 * c];
        }
    }
    condensenet_run(model, image, logits, workspace);
}
