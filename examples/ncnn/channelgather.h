#ifndef LAYER_CHANNELGATHER_H
#define LAYER_CHANNELGATHER_H

#include "layer.h"

namespace ncnn {

// Picks channels: the index of a learned group convolution, or a permutation.
//
// Parameter 0 is how many, the weights are their numbers as int32. A number that the input has no channel for is an
// error of the run, never a read outside the blob.
class ChannelGather : public Layer
{
public:
    ChannelGather();

    virtual int load_param(const ParamDict& pd);
    virtual int load_model(const ModelBin& mb);
    virtual int forward(const Mat& bottom_blob, Mat& top_blob, const Option& opt) const;

public:
    int count;
    Mat index; // int32
};

} // namespace ncnn

#endif // LAYER_CHANNELGATHER_H
