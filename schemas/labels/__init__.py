"""Labels: what was true of requests, known later, and the predictions that wait for them."""

from inferd.schemas.labels.label import LABEL_BYTES_MAX, Label, LabelValue, check_label, decode_label, encode_label
from inferd.schemas.labels.prediction import (
    TO_LABEL_BYTES_MAX,
    Scores,
    ToLabel,
    decode_to_label,
    encode_to_label,
)

__all__ = [
    "LABEL_BYTES_MAX",
    "TO_LABEL_BYTES_MAX",
    "Label",
    "LabelValue",
    "Scores",
    "ToLabel",
    "check_label",
    "decode_label",
    "decode_to_label",
    "encode_label",
    "encode_to_label",
]
