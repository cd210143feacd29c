"""A client of the Open Inference Protocol made of MLServer's codecs: runs in MLServer's own environment.

Standard input has requests as JSON, one a line: `url`, the `codec` to encode with, the `columns` of the rows (datatype
and values by name), the names of `outputs`. Standard output has, one a line, the values of each output by name. Without
a `url`, it has the encoded request instead; a line with a `response` alone is a response to decode.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, RequestOutput, ResponseOutput

TIMEOUT_S = 300


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "response" in asked:
            print(json.dumps(values_of(InferenceResponse.model_validate(asked["response"]))))
            continue
        frame = pd.DataFrame({name: pd.Series(**column) for name, column in asked["columns"].items()})
        request = ENCODERS[asked["codec"]](frame)
        request.id = "of-mlserver"
        request.outputs = [RequestOutput(name=name) for name in asked["outputs"]]
        if "url" not in asked:
            print(json.dumps(request.model_dump()))
            continue
        response = infer(asked["url"], request)
        print(json.dumps(values_of(response)))


def values_of(response: InferenceResponse) -> dict[str, list[Any]]:
    assert response.id == "of-mlserver"
    return {output.name: decoded(output) for output in response.outputs}


def infer(url: str, request: InferenceRequest) -> InferenceResponse:
    body = json.dumps(request.model_dump()).encode()
    made = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(made, timeout=TIMEOUT_S) as answer:
        return InferenceResponse.model_validate_json(answer.read())


def of_columns(frame: pd.DataFrame) -> InferenceRequest:
    """An input for each column, by the codec of its type."""
    return InferenceRequest(inputs=[of_column(str(name), frame[name]) for name in frame])


def of_column(name: str, column: pd.Series[Any]) -> Any:
    if column.dtype == object:
        return StringCodec.encode_input(name, column.tolist(), use_bytes=False)
    return NumpyCodec.encode_input(name, column.to_numpy())


def of_frame(frame: pd.DataFrame) -> InferenceRequest:
    request: InferenceRequest = PandasCodec.encode_request(frame, use_bytes=False)
    return request


def of_matrix(frame: pd.DataFrame) -> InferenceRequest:
    request: InferenceRequest = NumpyRequestCodec.encode_request(frame.to_numpy(np.float64))
    return request


ENCODERS = {"columns": of_columns, "frame": of_frame, "matrix": of_matrix}


def decoded(output: ResponseOutput) -> list[Any]:
    """The values of an output, one a row, by the codec of its datatype."""
    if output.datatype == "BYTES":
        texts: list[Any] = StringCodec.decode_output(output)
        return texts
    values: list[Any] = NumpyCodec.decode_output(output).tolist()
    return values


if __name__ == "__main__":
    main()
