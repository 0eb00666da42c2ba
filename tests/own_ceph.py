"""A real Ceph of the smallest size, with its S3 door, of the tests' own: one monitor, one OSD in memory, one radosgw.

All on 127.0.0.1, as any user. The programs come from the distribution's packages: `make ceph` installs them.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard_serving.local_stage import free_port

PROGRAMS = ("ceph", "monmaptool", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")

_CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}/0]
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
# No keys inside the cluster; S3's are checked all the same. Without keys the clients must not ask the monitor for an
# encrypted connection: radosgw does by default, and then hangs for five minutes.
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
# The monitor gathers changes for a second, and radosgw makes its pools one by one: 15 seconds become less than 2.
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
log_file = {dir}/$name.log
pid_file = {dir}/$type.pid
admin_socket = {dir}/$name.asok
run_dir = {dir}
crash_dir = {dir}
[mon]
mon_data = {dir}/mon
mon_cluster_log_file = {dir}/cluster.log
mon_data_avail_warn = 2
mon_data_avail_crit = 1
[osd]
osd_data = {dir}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{rgw_port}
rgw_data = {dir}/rgw
rgw_enable_usage_log = false
rgw_init_timeout = 60
"""


@dataclass(frozen=True, slots=True)
class Ceph:
    """Where its S3 is, and a user who may make buckets."""

    url: str
    key: str = "AKIATEST"
    secret: str = "secrettest"
    client: Any = field(default=None, repr=False)

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def ceph() -> Iterator[Ceph]:
    """A new, empty cluster for the length of a block."""
    folder = Path(tempfile.mkdtemp(prefix="ceph-"))  # daemons change to /, and a socket's path is at most 107 long
    mon_port, rgw_port = free_port(), free_port()
    conf = folder / "ceph.conf"
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    fsid = str(uuid.uuid4())
    conf.write_text(_CONF.format(dir=folder, fsid=fsid, mon_port=mon_port, rgw_port=rgw_port))
    env = {key: value for key, value in os.environ.items() if not key.startswith("CEPH_")}

    def run(*command: str) -> str:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return done.stdout.strip()

    try:
        at = f"--conf={conf}"
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", f"{folder}/monmap")
        run("ceph-mon", at, "-i", "a", "--mkfs", "--monmap", f"{folder}/monmap")
        run("ceph-mon", at, "-i", "a")
        osd = run("ceph", at, "osd", "create")
        run("ceph", at, "osd", "crush", "add", f"osd.{osd}", "1", "root=default", "host=localhost")
        run("ceph-osd", at, "-i", osd, "--mkfs")
        run("ceph-osd", at, "-i", osd)
        _wait(lambda: "1 up" in run("ceph", at, "osd", "stat"))
        run("radosgw", at, "-n", "client.rgw", "--pid-file", f"{folder}/radosgw.pid")
        _wait(lambda: _listens(rgw_port))
        made = Ceph(f"http://127.0.0.1:{rgw_port}")
        user = ("--uid=test", "--display-name=test", f"--access-key={made.key}", f"--secret-key={made.secret}")
        run("radosgw-admin", at, "-n", "client.rgw", f"--admin-socket={folder}/admin.asok", "user", "create", *user)
        yield Ceph(made.url, client=_client(made))
    finally:
        for name in ("radosgw", "osd", "mon"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGKILL)  # nothing in it is to be kept
        shutil.rmtree(folder, ignore_errors=True)


def _client(ceph: Ceph) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"}, proxies={}, connect_timeout=5, read_timeout=30)
    login = {"aws_access_key_id": ceph.key, "aws_secret_access_key": ceph.secret, "region_name": "us-east-1"}
    return boto3.session.Session().client("s3", endpoint_url=ceph.url, config=config, **login)


def _wait(ready: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not ready():
        if time.monotonic() > ends:
            raise RuntimeError("the cluster did not come up within a minute")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
