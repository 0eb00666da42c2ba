"""The clients that people have already: Triton's, and MLflow's own, unchanged."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of a type hint of its own
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient


@pytest.fixture
def triton(mixed):
    client = InferenceServerClient(f"127.0.0.1:{mixed.port}", connection_timeout=10, network_timeout=30)
    yield client
    client.close()


def tensors(client: InferenceServerClient, rows: list[dict[str, Any]], *, binary: bool) -> list[InferInput]:
    """As the model's own metadata says."""
    made = []
    for column in client.get_model_metadata("m")["inputs"]:
        values = np.array([row[column["name"]] for row in rows], triton_to_np_dtype(column["datatype"]))
        made.append(InferInput(column["name"], list(values.shape), column["datatype"]))
        made[-1].set_data_from_numpy(values, binary_data=binary)
    return made


def test_tritons_client_finds_server_and_model_live_and_ready(triton) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("m")
    assert triton.is_model_ready("m", "1")
    assert not triton.is_model_ready("m", "2")
    assert not triton.is_model_ready("other")
    assert triton.get_server_metadata()["name"] == "modelyard"


@pytest.mark.parametrize("sent", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("given", [None, True, False], ids=["outputs unsaid", "bytes back", "json back"])
def test_tritons_client_gets_the_golden_answers(triton, mixed, sent: bool, given: bool | None) -> None:
    names = ["predictions", "probabilities"]
    outputs = None if given is None else [InferRequestedOutput(name, binary_data=given) for name in names]
    inputs = tensors(triton, mixed.golden.rows, binary=sent)
    answer = triton.infer("m", inputs, outputs=outputs, request_id="seven", model_version="1")
    assert answer.get_response()["id"] == "seven"
    texts = [value.decode() if isinstance(value, bytes) else value for value in answer.as_numpy("predictions")]
    assert texts == mixed.golden.answers["predict"]
    assert answer.as_numpy("probabilities").tolist() == mixed.native["probabilities"]


def test_tritons_client_hears_why_it_was_refused(triton, mixed) -> None:
    with pytest.raises(InferenceServerException, match="tensor 'town' is missing") as caught:
        triton.infer("m", tensors(triton, mixed.golden.rows, binary=True)[:-1])
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="there is no model 'other' here"):
        triton.infer("other", tensors(triton, mixed.golden.rows, binary=True))


def test_mlflows_client_gets_the_golden_answers_to_a_frame(mixed) -> None:
    client = ScoringServerClient("127.0.0.1", mixed.port)
    client.ping()
    assert client.get_version()
    frame = pd.DataFrame(mixed.golden.rows)
    for sent in (frame, mixed.golden.rows):
        answered = client.invoke(sent).get_predictions()
        assert answered[0].tolist() == mixed.golden.answers["predict"]


def test_mlflows_client_hears_why_it_was_refused(mixed) -> None:
    frame = pd.DataFrame(mixed.golden.rows).drop(columns="town")
    with pytest.raises(Exception, match=r"error code 400.*column 'town' is missing"):
        ScoringServerClient("127.0.0.1", mixed.port).invoke(frame)
