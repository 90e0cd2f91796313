"""What TensorFlow Lite's numbers mean: operators, element types, settings."""

from __future__ import annotations

TYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
}
"""Element types that an array can have."""

OPERATORS: dict[int, str] = {}
"""Operators by number."""

for _first, _names in (
    (
        0,
        "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE "
        "DEQUANTIZE EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP "
        "L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC "
        "LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE "
        "RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS "
        "SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD "
        "UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND "
        "TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE "
        "BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE "
        "BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 "
        "GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV "
        "SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW "
        "ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND "
        "LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL "
        "FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE "
        "MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK "
        "ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF "
        "WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 "
        "DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM "
        "CALL_ONCE BROADCAST_TO RFFT2D CONV_3D",
    ),
    (150, "GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1"),
    (158, "SIGN"),
):
    OPERATORS |= dict(enumerate(_names.split(), _first))

WINDOW = "padding:b stride_w:i stride_h:i "

SETTINGS: dict[str, str] = {
    "ADD": "activation:b",
    "SUB": "activation:b",
    "MUL": "activation:b",
    "DIV": "activation:b",
    "CONV_2D": WINDOW + "activation:b dilation_w:i=1 dilation_h:i=1",
    "DEPTHWISE_CONV_2D": WINDOW + "depth_multiplier:i activation:b dilation_w:i=1 "
    "dilation_h:i=1",
    "CONV_3D": "padding:b stride_d:i stride_w:i stride_h:i activation:b "
    "dilation_d:i=1 dilation_w:i=1 dilation_h:i=1",
    "TRANSPOSE_CONV": WINDOW + "activation:b",
    "FULLY_CONNECTED": "activation:b weights_format:b keep_num_dims:?",
    "AVERAGE_POOL_2D": WINDOW + "filter_width:i filter_height:i activation:b",
    "MAX_POOL_2D": WINDOW + "filter_width:i filter_height:i activation:b",
    "L2_POOL_2D": WINDOW + "filter_width:i filter_height:i activation:b",
    "CONCATENATION": "axis:i activation:b",
    "RESHAPE": "new_shape:i*",
    "SOFTMAX": "beta:f",
    "LEAKY_RELU": "alpha:f",
    "GELU": "approximate:?",
    "MIRROR_PAD": "mode:b",
    "MEAN": "keep_dims:?",
    "SUM": "keep_dims:?",
    "REDUCE_MAX": "keep_dims:?",
    "REDUCE_MIN": "keep_dims:?",
    "REDUCE_PROD": "keep_dims:?",
    "RESIZE_BILINEAR": "-:i -:i align_corners:? half_pixel_centers:?",
    "RESIZE_NEAREST_NEIGHBOR": "align_corners:? half_pixel_centers:?",
    "STRIDED_SLICE": "begin_mask:i end_mask:i ellipsis_mask:i new_axis_mask:i "
    "shrink_axis_mask:i offset:?",
    "SPLIT": "num_splits:i",
    "SPLIT_V": "num_splits:i",
    "PACK": "values_count:i axis:i",
    "UNPACK": "num:i axis:i",
    "SQUEEZE": "squeeze_dims:i*",
    "SPACE_TO_DEPTH": "block_size:i",
    "DEPTH_TO_SPACE": "block_size:i",
    "BATCH_MATMUL": "adj_x:? adj_y:?",
    "CAST": "in_data_type:b out_data_type:b",
    "ARG_MAX": "output_type:b",
    "ARG_MIN": "output_type:b",
    "GATHER": "axis:i batch_dims:i",
    "LOCAL_RESPONSE_NORMALIZATION": "radius:i bias:f alpha:f beta:f",
    "L2_NORMALIZATION": "activation:b",
    "CUMSUM": "exclusive:? reverse:?",
    "SHAPE": "out_type:b",
}
"""Settings in the order of their fields: name, kind of number, default, * for many."""

ACTIVATIONS = {
    0: (None, None),
    1: (0.0, None),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}
"""The bounds of activations that are part of an operator; `TANH` has none."""

TANH = 4
"""The activation that is no bound."""

RANGES = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "int32": (-(1 << 31), (1 << 31) - 1),
}
"""The smallest and the largest number of whole element types."""
