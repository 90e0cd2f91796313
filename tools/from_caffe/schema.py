"""The fields of Caffe's messages: their numbers in a file, their names, what they hold.

A field is written ``number name:kind``, with ``*`` behind it if it may be repeated. A
kind is ``int``, ``float``, ``bool`` or ``text``, one of `CHOICES`, or a message.
Messages that forks have added are read from text only and need none.
"""

from __future__ import annotations

from dataclasses import dataclass

CHOICES = {
    "phase": {0: "TRAIN", 1: "TEST"},
    "pool": {0: "MAX", 1: "AVE", 2: "STOCHASTIC"},
    "round": {0: "CEIL", 1: "FLOOR"},
    "eltwise": {0: "PROD", 1: "SUM", 2: "MAX"},
    "region": {0: "ACROSS_CHANNELS", 1: "WITHIN_CHANNEL"},
    "reduction": {1: "SUM", 2: "ASUM", 3: "SUMSQ", 4: "MEAN"},
    "code": {1: "CORNER", 2: "CENTER_SIZE", 3: "CORNER_SIZE"},
    "old_type": {
        0: "NONE",
        1: "Accuracy",
        2: "BNLL",
        3: "Concat",
        4: "Convolution",
        5: "Data",
        6: "Dropout",
        7: "EuclideanLoss",
        8: "Flatten",
        9: "HDF5Data",
        10: "HDF5Output",
        11: "Im2col",
        12: "ImageData",
        13: "InfogainLoss",
        14: "InnerProduct",
        15: "LRN",
        16: "MultinomialLogisticLoss",
        17: "Pooling",
        18: "ReLU",
        19: "Sigmoid",
        20: "Softmax",
        21: "SoftmaxWithLoss",
        22: "Split",
        23: "TanH",
        24: "WindowData",
        25: "Eltwise",
        26: "Power",
        27: "SigmoidCrossEntropyLoss",
        28: "HingeLoss",
        29: "MemoryData",
        30: "ArgMax",
        31: "Threshold",
        32: "DummyData",
        33: "Slice",
        34: "MVN",
        35: "AbsVal",
        36: "Silence",
        37: "ContrastiveLoss",
        38: "Exp",
        39: "Deconvolution",
    },
}
"""Names by number."""

OLD_NAMES = {
    "SOFTMAXLOSS": "SoftmaxWithLoss",
    **{name.upper(): name for name in CHOICES["old_type"].values()},
}
"""Types of layers by what the old kind of layer calls them, without underscores."""

_PARAMETERS = {
    "argmax_param": "1 out_max_val:bool 2 top_k:int 3 axis:int",
    "batch_norm_param": "1 use_global_stats:bool 2 moving_average_fraction:float "
    "3 eps:float 7 scale_bias:bool",
    "bias_param": "1 axis:int 2 num_axes:int",
    "clip_param": "1 min:float 2 max:float",
    "concat_param": "2 axis:int 1 concat_dim:int",
    "convolution_param": "1 num_output:int 2 bias_term:bool 3 pad:int* "
    "4 kernel_size:int* 6 stride:int* 18 dilation:int* 9 pad_h:int 10 pad_w:int "
    "11 kernel_h:int 12 kernel_w:int 13 stride_h:int 14 stride_w:int 5 group:int "
    "16 axis:int 17 force_nd_im2col:bool",
    "crop_param": "1 axis:int 2 offset:int*",
    "detection_output_param": "1 num_classes:int 2 share_location:bool "
    "3 background_label_id:int 4 nms_param:nms_param 6 code_type:code "
    "8 variance_encoded_in_target:bool 7 keep_top_k:int 9 confidence_threshold:float "
    "10 normalized_bbox:bool",
    "dropout_param": "1 dropout_ratio:float 2 scale_train:bool",
    "dummy_data_param": "6 shape:shape* 2 num:int* 3 channels:int* 4 height:int* "
    "5 width:int*",
    "eltwise_param": "1 operation:eltwise 2 coeff:float* 3 stable_prod_grad:bool",
    "elu_param": "1 alpha:float",
    "exp_param": "1 base:float 2 scale:float 3 shift:float",
    "flatten_param": "1 axis:int 2 end_axis:int",
    "image_data_param": "4 batch_size:int 9 new_height:int 10 new_width:int "
    "11 is_color:bool 5 crop_size:int",
    "inner_product_param": "1 num_output:int 2 bias_term:bool 5 axis:int "
    "6 transpose:bool",
    "input_param": "1 shape:shape*",
    "log_param": "1 base:float 2 scale:float 3 shift:float",
    "lrn_param": "1 local_size:int 2 alpha:float 3 beta:float 4 norm_region:region "
    "5 k:float",
    "memory_data_param": "1 batch_size:int 2 channels:int 3 height:int 4 width:int",
    "mvn_param": "1 normalize_variance:bool 2 across_channels:bool 3 eps:float",
    "nms_param": "1 nms_threshold:float 2 top_k:int 3 eta:float",
    "norm_param": "1 across_spatial:bool 3 channel_shared:bool 4 eps:float",
    "permute_param": "1 order:int*",
    "pooling_param": "1 pool:pool 4 pad:int 9 pad_h:int 10 pad_w:int 2 kernel_size:int "
    "5 kernel_h:int 6 kernel_w:int 3 stride:int 7 stride_h:int 8 stride_w:int "
    "12 global_pooling:bool 13 round_mode:round 90 ceil_mode:bool",
    "power_param": "1 power:float 2 scale:float 3 shift:float",
    "prelu_param": "2 channel_shared:bool",
    "prior_box_param": "1 min_size:float* 2 max_size:float* 3 aspect_ratio:float* "
    "4 flip:bool 5 clip:bool 6 variance:float* 7 img_size:int 8 img_h:int 9 img_w:int "
    "10 step:float 11 step_h:float 12 step_w:float 13 offset:float",
    "reduction_param": "1 operation:reduction 2 axis:int 3 coeff:float",
    "relu_param": "1 negative_slope:float",
    "reshape_param": "1 shape:shape 2 axis:int 3 num_axes:int",
    "scale_param": "1 axis:int 2 num_axes:int 4 bias_term:bool",
    "slice_param": "3 axis:int 2 slice_point:int* 1 slice_dim:int",
    "softmax_param": "2 axis:int",
    "swish_param": "1 beta:float",
    "threshold_param": "1 threshold:float",
    "tile_param": "1 axis:int 2 tiles:int",
    "transform_param": "1 scale:float 3 crop_size:int 4 mean_file:text "
    "5 mean_value:float* 6 force_color:bool 7 force_gray:bool",
    "shape": "1 dim:int*",
    "rule": "1 phase:phase 2 min_level:int 3 max_level:int 4 stage:text* "
    "5 not_stage:text*",
}

_PARAMETERS["layer"] = (
    "1 name:text 2 type:text 3 bottom:text* 4 top:text* 10 phase:phase 7 blobs:blob* "
    "8 include:rule* 9 exclude:rule* "
) + " ".join(
    f"{number} {name}:{name}"
    for number, name in {
        100: "transform_param",
        103: "argmax_param",
        104: "concat_param",
        106: "convolution_param",
        108: "dropout_param",
        109: "dummy_data_param",
        110: "eltwise_param",
        111: "exp_param",
        115: "image_data_param",
        117: "inner_product_param",
        118: "lrn_param",
        119: "memory_data_param",
        120: "mvn_param",
        121: "pooling_param",
        122: "power_param",
        123: "relu_param",
        125: "softmax_param",
        126: "slice_param",
        128: "threshold_param",
        131: "prelu_param",
        133: "reshape_param",
        134: "log_param",
        135: "flatten_param",
        136: "reduction_param",
        138: "tile_param",
        139: "batch_norm_param",
        140: "elu_param",
        141: "bias_param",
        142: "scale_param",
        143: "input_param",
        144: "crop_param",
        147: "swish_param",
        148: "clip_param",
        202: "permute_param",
        203: "prior_box_param",
        204: "detection_output_param",
        206: "norm_param",
    }.items()
)

_PARAMETERS["old_layer"] = (
    "4 name:text 5 type:old_type 2 bottom:text* 3 top:text* 6 blobs:blob* "
    "32 include:rule* 33 exclude:rule* 1 layer:older_layer "
) + " ".join(
    f"{number} {name}:{name}"
    for number, name in {
        9: "concat_param",
        10: "convolution_param",
        12: "dropout_param",
        15: "image_data_param",
        17: "inner_product_param",
        18: "lrn_param",
        19: "pooling_param",
        21: "power_param",
        22: "memory_data_param",
        23: "argmax_param",
        24: "eltwise_param",
        25: "threshold_param",
        26: "dummy_data_param",
        30: "relu_param",
        31: "slice_param",
        34: "mvn_param",
        36: "transform_param",
        39: "softmax_param",
        41: "exp_param",
    }.items()
)

_PARAMETERS["older_layer"] = "1 name:text 2 type:text"

_PARAMETERS["net"] = (
    "1 name:text 3 input:text* 8 input_shape:shape* 4 input_dim:int* 100 layer:layer* "
    "2 layers:old_layer*"
)


@dataclass(frozen=True)
class Field:
    """A field of a message.

    Parameters
    ----------
    number : int
        In a file.
    name, kind : str
        As the module says.
    repeated : bool
        Whether there may be several.
    """

    number: int
    name: str
    kind: str
    repeated: bool


def _fields(text: str) -> list[Field]:
    words = text.split()
    found = []
    for number, rest in zip(words[::2], words[1::2], strict=True):
        name, kind = rest.rstrip("*").split(":")
        found.append(Field(int(number), name, kind, rest.endswith("*")))
    return found


MESSAGES: dict[str, dict[int, Field]] = {
    message: {field.number: field for field in _fields(text)}
    for message, text in _PARAMETERS.items()
}
"""Fields by message and number."""

NAMES: dict[str, dict[str, Field]] = {
    message: {field.name: field for field in fields.values()}
    for message, fields in MESSAGES.items()
}
"""Fields by message and name."""

FORKED = {
    ("DetectionOutput", 147): "detection_output_param",
    ("Permute", 148): "permute_param",
    ("Normalize", 149): "norm_param",
    ("PriorBox", 150): "prior_box_param",
}
"""Numbers that mean another message in layers of some types."""
