#include "channelgather.h"

#include <string.h>

namespace ncnn {

ChannelGather::ChannelGather()
{
    one_blob_only = true;
}

int ChannelGather::load_param(const ParamDict& pd)
{
    count = pd.get(0, 0);
    return count > 0 ? 0 : -1;
}

int ChannelGather::load_model(const ModelBin& mb)
{
    index = mb.load(count, 1); // raw words
    return index.empty() ? -100 : 0;
}

int ChannelGather::forward(const Mat& bottom_blob, Mat& top_blob, const Option& opt) const
{
    const int* picked = (const int*)index.data;
    for (int i = 0; i < count; i++)
    {
        if (picked[i] < 0 || picked[i] >= bottom_blob.c)
            return -1;
    }

    top_blob.create(bottom_blob.w, bottom_blob.h, count, bottom_blob.elemsize, opt.blob_allocator);
    if (top_blob.empty())
        return -100;

    const size_t bytes = (size_t)bottom_blob.w * bottom_blob.h * bottom_blob.elemsize;
    for (int i = 0; i < count; i++)
    {
        memcpy(top_blob.channel(i), bottom_blob.channel(picked[i]), bytes);
    }
    return 0;
}

} // namespace ncnn
