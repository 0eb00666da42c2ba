"""Start the console: `python -m modelyard_serving.console --port PORT --db NAME --secret-file FILE`.

MongoDB's URL comes from YARD_MONGO_URL, since it may hold a password.
"""

import argparse
import logging
import os
from pathlib import Path

import uvicorn
from pymongo import MongoClient

from modelyard_serving.console.app import create_app

NICENESS = 10  # on a machine that also answers predictions, these go first


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m modelyard_serving.console", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--db", required=True, help="database name")
    parser.add_argument("--secret-file", type=Path, required=True, help="what the gateway proves itself with")
    args = parser.parse_args()
    if "YARD_MONGO_URL" not in os.environ:
        parser.error("YARD_MONGO_URL is not set")
    os.nice(NICENESS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    url = os.environ["YARD_MONGO_URL"]
    client: MongoClient[dict[str, object]] = MongoClient(url, tz_aware=True, serverSelectionTimeoutMS=5000)
    app = create_app(client[args.db], args.secret_file.read_text().strip())
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
