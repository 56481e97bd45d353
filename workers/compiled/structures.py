"""The structures of `condensenet_training.c`, field by field in its order."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p


class Norm(ctypes.Structure):
    """One batch norm: its tensors, and where the gradients of weight and bias begin."""

    _fields_ = [
        ("channels", c_int32),
        ("unused", c_int32),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("mean", c_void_p),
        ("variance", c_void_p),
        ("d_weight", c_int64),
        ("d_bias", c_int64),
    ]


class Layer(ctypes.Structure):
    """One dense layer: its shape, the columns its groups keep, its tensors."""

    _fields_ = [
        ("stage", c_int32),
        ("inputs", c_int32),
        ("mid", c_int32),
        ("growth", c_int32),
        ("groups", c_int32),
        ("groups_3x3", c_int32),
        ("kept", c_int32),
        ("unused", c_int32),
        ("columns", c_void_p),
        ("weight_1x1", c_void_p),
        ("weight_3x3", c_void_p),
        ("d_weight_1x1", c_int64),
        ("d_weight_3x3", c_int64),
        ("before", Norm),
        ("between", Norm),
    ]


class Network(ctypes.Structure):
    """The dense layers of one network, from the stem's output to the pooled features."""

    _fields_ = [
        ("layers", c_int32),
        ("stages", c_int32),
        ("stem", c_int32),
        ("features", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("momentum", c_float),
        ("epsilon", c_float),
        ("layer", ctypes.POINTER(Layer)),
        ("last", Norm),
        ("gradients", c_void_p),
        ("gradient_floats", c_int64),
    ]
