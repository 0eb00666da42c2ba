"""Stands in for a served bento: a process with the runtime's addresses and no model, so that it starts quickly.

What it answers with is in `model.json` of its folder.
"""

import json
import os
import sys
import time
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def app(folder: Path, port: int) -> Starlette:
    model = json.loads((folder / "model.json").read_text())

    def provenance(request: Request) -> JSONResponse:  # noqa: ARG001
        return JSONResponse(model)

    def predict(request: Request) -> JSONResponse:
        time.sleep(float(request.query_params.get("seconds", 0)))
        said = {"port": port, "bento": os.environ["YARD_BENTO_SHA256"], **dict(request.headers)}
        return JSONResponse(said, headers={"x-model-version": str(model["version"])})

    return Starlette(
        routes=[
            Route("/provenance", provenance),
            Route("/readyz", provenance),
            Route("/predict", predict, methods=["POST"]),
        ],
    )


if __name__ == "__main__":  # as `python -m modelyard_serving.runtime.server FOLDER --host HOST --port PORT`
    folder, port = Path(sys.argv[3]), int(sys.argv[7])
    uvicorn.run(app(folder, port), host=sys.argv[5], port=port, log_level="warning", access_log=False)
