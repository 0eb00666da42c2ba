"""A bare Starlette handler: JSON in, one predict, JSON out. No validation, no key, no record, no metrics."""

import os

import joblib
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

model = joblib.load(os.environ["BENCH_MODEL"])


async def predict(request: Request) -> JSONResponse:
    rows = (await request.json())["instances"]
    return JSONResponse({"predictions": model.predict(np.array(rows)).tolist()})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
