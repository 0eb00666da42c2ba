"""What tracking costs: logging a point, bringing points to MongoDB, listing ten thousand runs. On a real mongod.

MLflow on SQLite is measured in the same process, right after ours: the ratio is what counts on a machine that drifts.
"""

import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bson import encode
from own_mongod import mongod
from pymongo.uri_parser import parse_uri
from table import print_table

from modelyard_serving.local_stage import free_port
from modelyard_tracking.recording.spool import RunWriter, Spool
from modelyard_tracking.recording.upload import RunUpload, prepare
from modelyard_tracking.store import Home

YARD = str(Path(sys.executable).parent / "yard")
POINTS = 20_000
MLFLOW_POINTS = 300
RUNS, METRICS = 10_000, 10


def logging_a_point(home: Home, folder: Path) -> dict[str, float]:
    """Median of one call, in a run whose uploader is at work."""
    from modelyard_tracking.experiment import Experiment

    experiment = Experiment("bench", home=lambda: home)
    ours: list[int] = []

    @experiment.main
    def main(_run: Any) -> None:
        for step in range(POINTS):
            started = time.perf_counter_ns()
            _run.log_scalar("loss", 1.0 / (step + 1), step)
            ours.append(time.perf_counter_ns() - started)
            if step % 100 == 0:
                time.sleep(0.005)  # as a training does between its steps, so that the uploader has a share, too

    experiment.run(options={"--capture": "no", "--loglevel": "ERROR"})

    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("bench")
    theirs: list[int] = []
    with mlflow.start_run():
        for step in range(MLFLOW_POINTS):
            started = time.perf_counter_ns()
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
            theirs.append(time.perf_counter_ns() - started)
    ours_us, theirs_us = statistics.median(ours) / 1e3, statistics.median(theirs) / 1e3
    p99 = sorted(ours)[len(ours) * 99 // 100] / 1e3
    return {
        "log_scalar_us": ours_us,
        "log_scalar_p99_us": p99,
        "mlflow_us": theirs_us,
        "vs_mlflow": theirs_us / ours_us,
    }


def started_run(home: Home) -> RunWriter:
    folder = Spool(home.spool).new()
    writer = RunWriter(folder)
    document = {
        "experiment": {"name": "bench", "sources": []},
        "config": {"lr": 0.1},
        "status": "RUNNING",
        "start_time": datetime.now(UTC),
        "info": {"modelyard": {"uuid": folder.uuid}},
    }
    writer.event("started", document=document)
    return writer


def draining(home: Home) -> dict[str, float]:
    """Points a second from the spool into mongod, acknowledged by the journal; the median of three runs."""
    speeds = []
    for _ in range(3):
        writer = started_run(home)
        for step in range(30_000):
            for metric in range(10):
                writer.point(f"metric_{metric}", step, step * 0.1)
        writer.end(status="COMPLETED", result=1.0)
        writer.close()
        with home.connected() as db:
            prepare(db)
            started = time.perf_counter()
            RunUpload(writer.folder, db).step()
            speeds.append(300_000 / (time.perf_counter() - started))
        writer.folder.remove()
    return {"drain_points_per_s": statistics.median(speeds)}


def much_output(home: Home) -> dict[str, float]:
    """Bytes of the run's document after 50 MB of captured output, and seconds to store it all."""
    writer = started_run(home)
    writer.folder.output.write_text(("x" * 99 + "\n") * 500_000)
    writer.end(status="COMPLETED", result=1.0)
    writer.close()
    with home.connected() as db:
        started = time.perf_counter()
        upload = RunUpload(writer.folder, db)
        upload.step()
        seconds = time.perf_counter() - started
        document = db.runs.find_one({"_id": upload.run_id}) or {}
    writer.folder.remove()
    return {"output_50mb_document_kb": len(encode(document)) / 1024, "output_50mb_s": seconds}


def many_runs(home: Home) -> None:
    """Ten thousand runs with ten metrics of five points each, as the uploader writes them, with their output."""
    names = [f"val.metric_{number}" for number in range(METRICS)]
    start = datetime.now(UTC) - timedelta(days=90)
    with home.connected() as db:
        prepare(db)
        for block in range(0, RUNS, 1000):
            runs, metrics = [], []
            for number in range(block, block + 1000):
                last = {name: (number * 7919 + k * 104729) % 100_003 / 100_003 for k, name in enumerate(names)}
                at = start + timedelta(minutes=number)
                summaries = {
                    name.replace(".", ","): {"name": name, "last": value, "min": 0.0, "max": value, "points": 5}
                    for name, value in last.items()
                }
                ours = {"uuid": f"bench-{number}", "commit": "0" * 40, "dirty": False, "metrics": summaries}
                runs.append(
                    {
                        "_id": 1_000_000 + number,
                        "experiment": {"name": "churn", "sources": [], "mainfile": "train.py"},
                        "format": "MongoObserver-0.7.0",
                        "command": "main",
                        "config": {"lr": 0.1, "depth": number % 12, "features": ["a", "b", "c"] * 5},
                        "host": {"hostname": "bench"},
                        "status": "COMPLETED",
                        "start_time": at,
                        "stop_time": at + timedelta(seconds=30),
                        "heartbeat": at + timedelta(seconds=30),
                        "result": {"auc": last[names[0]]},
                        "captured_out": "epoch 1 loss 0.5\n" * 200,
                        "info": {"modelyard": ours, "metrics": [{"name": n, "id": f"{number}{n}"} for n in names]},
                        "artifacts": [],
                        "resources": [],
                    }
                )
                metrics += [
                    {
                        "run_id": 1_000_000 + number,
                        "name": name,
                        "steps": list(range(5)),
                        "values": [value * step / 4 for step in range(5)],
                        "timestamps": [at] * 5,
                    }
                    for name, value in last.items()
                ]
            db.runs.insert_many(runs)
            db.metrics.insert_many(metrics)


def listing(home: Home, folder: Path) -> dict[str, float]:
    """Seconds of whole `yard` processes over ten thousand runs, the median of five."""
    env = {
        **os.environ,
        "YARD_MONGO_URL": home.mongo_url,
        "YARD_DATABASE": home.database,
        "YARD_HOME": str(folder / "home"),
        "YARD_SPOOL": str(home.spool_root),
    }
    commands = {
        "list_10k_s": [YARD, "runs"],
        "list_10k_sorted_s": [YARD, "runs", "churn", "--sort", "val.metric_3", "--where", "depth>5", "-n", "20"],
        "list_10k_all_json_s": [YARD, "runs", "--limit", "10000", "--json"],
    }
    figures = {}
    for name, command in commands.items():
        times = []
        for _ in range(6):
            started = time.perf_counter()
            subprocess.run(command, env=env, capture_output=True, check=True)
            times.append(time.perf_counter() - started)
        figures[name] = statistics.median(times[1:])
    return figures


def omniboard_list(folder: Path, port: int) -> dict[str, float]:
    """Seconds until the real Omniboard lists ten thousand runs in a real browser, and until one of them is open."""
    from playwright.sync_api import sync_playwright

    from modelyard import omniboard
    from modelyard.settings import read_settings
    from modelyard.stack import Stack

    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium, so Omniboard is not measured:  make browser")
        return {}
    env = {"YARD_HOME": str(folder), "YARD_MONGO_PORT": str(port), "YARD_DATABASE": "bench"}
    settings = read_settings(env | {"YARD_OMNIBOARD_PORT": str(free_port())}, folder)
    stack = Stack(settings)
    stack.processes.start_supervisor()
    try:
        stack.open(omniboard.omniboard(settings))
        password = (folder / "secrets" / "omniboard").read_text()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            started = time.perf_counter()
            page.goto(f"http://yard:{password}@127.0.0.1:{settings.omniboard_port}")
            page.get_by_text(f"{RUNS} experiments").wait_for(timeout=120_000)
            listed = time.perf_counter()
            page.get_by_text("►").first.click()
            page.locator("path.js-line").first.wait_for(timeout=60_000)
            opened = time.perf_counter()
            browser.close()
    finally:
        stack.down()
    return {"omniboard_list_10k_s": listed - started, "omniboard_open_run_s": opened - listed}


def main() -> None:
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, mongod(Path(scratch)) as url:
        folder = Path(scratch)
        home = Home(url, "bench", folder / "artifacts", folder / "spool")
        figures = logging_a_point(home, folder)
        figures |= draining(home)
        figures |= much_output(home)
        with home.connected() as db:
            db.client.drop_database(home.database)
        many_runs(home)
        figures |= listing(home, folder)
        figures |= omniboard_list(folder, parse_uri(url)["nodelist"][0][1])
    goals = {
        "log_scalar_us": "<= 15",
        "vs_mlflow": ">= 50",
        "drain_points_per_s": ">= 50,000",
        "list_10k_s": "< 1",
    }
    print_table("Tracking", figures, goals)


if __name__ == "__main__":
    main()
