"""What PyTorch's operators do to what flows through them, by their names."""

_ACTIVATIONS = """
relu relu6 tanh sigmoid gelu silu elu leaky_relu hardtanh hardswish hardsigmoid mish softplus softsign log_sigmoid
log_sigmoid_forward prelu _prelu_kernel rrelu rrelu_with_noise softshrink hardshrink threshold celu selu sin cos tan
sinh cosh asinh atan erf sinc glu
"""
_RECURRENT = """
lstm gru rnn_tanh rnn_relu mkldnn_rnn_layer _cudnn_rnn miopen_rnn _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell
gru_cell rnn_tanh_cell rnn_relu_cell
"""
_PLAIN = """
add sub rsub mul div neg positive clone _to_copy copy lerp addcmul addcdiv fill zero lift_fresh detach alias bitwise_and
bitwise_or bitwise_xor bitwise_not logical_and logical_or logical_not logical_xor isnan isinf real imag conj
view_as_real dropout native_dropout nan_to_num masked_fill where
"""
_COMPARISONS = "eq ne lt le gt ge argmax argmin logical_not logical_and logical_or isin nonzero bitwise_not"
_REDUCTIONS = "mean sum var var_mean std std_mean norm linalg_vector_norm amax max logsumexp prod cumsum"
_NORMALISING = "_softmax softmax _log_softmax log_softmax"
_CHOSEN = "index index_select masked_select take"
_PUT_BACK = "index_put _index_put_impl index_add index_copy scatter scatter_add scatter_reduce masked_scatter"
_PARTS = "select slice index index_select gather"

STRONG = frozenset(_ACTIVATIONS.split() + _RECURRENT.split())  # recurrent layers are gated by activations inside
NORMALISES = frozenset(_NORMALISING.split())
LINEAR = frozenset(_PLAIN.split())  # elementwise operators that are linear in each argument
CHOOSES = frozenset({"where", "masked_fill"})  # linear unless the condition depends on the points
COMPARES = frozenset(_COMPARISONS.split())
REDUCES = frozenset(_REDUCTIONS.split())
TAKES_A_PART = frozenset(_PARTS.split())
CHOOSES_ROWS = frozenset(_CHOSEN.split())
PUTS_BACK = frozenset(_PUT_BACK.split())
