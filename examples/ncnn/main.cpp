// Runs a bundle's model.ncnn.zip (unpacked) on one image of zeros and prints the logits.
//
// With an ncnn that has the layer inside (build.sh):
//   g++ -O3 -DGATHER_IS_BUILT_IN main.cpp -lncnn -fopenmp -o main
// With any other, the layer is compiled into the program:
//   g++ -O3 main.cpp channelgather.cpp -I . -lncnn -fopenmp -o main
//
//   ./main CHANNELS HEIGHT WIDTH        in the folder of model.param and model.bin

#include <stdio.h>
#include <stdlib.h>

#include "net.h"
#ifndef GATHER_IS_BUILT_IN
#include "channelgather.h"

static ncnn::Layer* make_gather(void*)
{
    return new ncnn::ChannelGather;
}
#endif

int main(int argc, char** argv)
{
    if (argc != 4)
    {
        fprintf(stderr, "usage: %s CHANNELS HEIGHT WIDTH\n", argv[0]);
        return 2;
    }
    ncnn::Net net;
    net.opt.num_threads = 1;
    // As it was measured: where a processor has fp16, ncnn turns it on by itself, and outputs are further off than 1e-5.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = false;
    net.opt.use_bf16_storage = false;
#ifndef GATHER_IS_BUILT_IN
    net.register_custom_layer("ChannelGather", make_gather);
#endif
    if (net.load_param("model.param") != 0 || net.load_model("model.bin") != 0)
        return 1;

    ncnn::Mat images(atoi(argv[3]), atoi(argv[2]), atoi(argv[1])), logits; // width, height, channels
    images.fill(0.f); // an image, normalised as deploy.toml says
    ncnn::Extractor run = net.create_extractor();
    run.input("images", images);
    if (run.extract("logits", logits) != 0)
        return 1;
    for (int i = 0; i < logits.w; i++)
        printf("%g\n", logits[i]);
    return 0;
}
