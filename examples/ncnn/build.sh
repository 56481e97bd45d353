#!/bin/sh
# Builds ncnn with the ChannelGather layer inside: a Python wheel for the agent, and libncnn.a with its headers.
#
#   sh build.sh SOURCE [OUT]
#
# SOURCE is ncnn's source: `git clone --depth 1 https://github.com/Tencent/ncnn` (with `git submodule update --init
# python/pybind11`), or its unpacked sdist. It is changed: the layer is added to it; doing so again does no harm. Needs
# cmake, a C++ compiler and Python with pip, setuptools and wheel. `EXTRA_CMAKE_ARGS` reaches cmake.
# A Raspberry Pi 5 has four cores: `CMAKE_BUILD_PARALLEL_LEVEL=4`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=${1:?usage: sh build.sh SOURCE [OUT]}
out=$(mkdir -p "${2:-.}" && cd "${2:-.}" && pwd)
list=$source/src/CMakeLists.txt

[ -f "$list" ] || { echo "$source must hold ncnn's source, but has no src/CMakeLists.txt" >&2; exit 2; }
cp "$here/channelgather.h" "$here/channelgather.cpp" "$source/src/layer/"
if ! grep -q 'ncnn_add_layer(ChannelGather)' "$list"; then
    last=$(grep -n '^ncnn_add_layer(' "$list" | tail -n 1 | cut -d : -f 1)
    sed -i "${last}a ncnn_add_layer(ChannelGather)" "$list"
fi
# Latencies are kept by runtime and version: this build is another one than the published wheel of the same day.
sed -i 's/+ ncnn_version$/+ ncnn_version + "+gather"/' "$source/setup.py"

cd "$source"
# The agent runs on the CPU in fp32. Vulkan and the int8 and bf16 kernels would only take time to build.
EXTRA_CMAKE_ARGS="-DNCNN_VULKAN=OFF -DNCNN_INT8=OFF -DNCNN_BF16=OFF -DNCNN_INSTALL_SDK=ON ${EXTRA_CMAKE_ARGS:-}" \
    python3 -m pip wheel --no-deps --no-build-isolation --wheel-dir "$out" .
echo "built in $out; install it with: pip install --force-reinstall --no-deps $out/ncnn-*.whl"
