"""Containers under podman, without a network, for the tests that look into one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

CALLER = Path(__file__).with_name("container_caller.py")
# runc and these limits work in a container and in a virtual machine too; crun and podman's own
# limits ask for rights that root has not got there.
RUN = [
    "podman", "--runtime", "runc", "run",
    "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4000:4000",
    "--env", "OMP_NUM_THREADS=1",  # threads that wait for each other starve beside other work
]  # fmt: skip
# As strict as a cluster's strictest policy: only /tmp can be written, and nothing can be gained.
# The bento can't set BENTOML_HOME for its image: BentoML's Dockerfile has a value that wins.
HARDENED = [
    "--env", "BENTOML_HOME=/tmp/bentoml",
    "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp",
    "--cap-drop", "all", "--security-opt", "no-new-privileges",
]  # fmt: skip


@dataclass(frozen=True)
class Container:
    """A container that was started; it may have ended."""

    name: str

    def inspect(self, what: str) -> str:
        """A part of what podman knows of it."""
        return podman("inspect", "--format", f"{{{{{what}}}}}", self.name).strip()

    @property
    def is_running(self) -> bool:
        return self.inspect(".State.Running") == "true"

    @property
    def log(self) -> str:
        done = subprocess.run(
            ["podman", "logs", self.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return done.stdout

    def call(self, name: str, **arguments: Any) -> Any:
        """Call the service over HTTP: a function of container_caller.py, on its loopback."""
        with self.calling(name, **arguments) as process:
            told, errors = process.communicate(timeout=300)
        assert process.returncode == 0, f"{errors}\n{self.log}"
        return json.loads(told)

    def draw(self, prompt: str) -> str:
        """Make a picture of the demo model, once the service is ready; return its pixels' hash."""
        self.call("wait_until_ready")
        picture = self.call("generate", prompt=prompt, seed=3)
        assert picture["size"] == [128, 128]
        pixels: str = picture["pixels"]
        return pixels

    @contextlib.contextmanager
    def calling(self, name: str, **arguments: Any) -> Iterator[subprocess.Popen[str]]:
        """The same, going on meanwhile."""
        network = f"--net=/proc/{self.inspect('.State.Pid')}/ns/net"
        command = ["nsenter", network, sys.executable, str(CALLER), name, json.dumps(arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=plain_client()
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

    def run(self, *command: str) -> str:
        """Run a command inside it."""
        return podman("--runtime", "runc", "exec", self.name, *command)


@contextlib.contextmanager
def running(
    image: str,
    *options: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    limits: Sequence[str] = HARDENED,
) -> Iterator[Container]:
    """Run a container until the block ends, with the image's own command or another."""
    container = Container(f"lpw-sdxl-test-{uuid4().hex[:8]}")
    variables = [f"--env={name}={value}" for name, value in (environment or {}).items()]
    named = ["--detach", "--name", container.name]
    subprocess.run(
        [*RUN, *named, *limits, "--network=none", *variables, *options, image, *command],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield container
    finally:
        podman("--runtime", "runc", "rm", "--force", "--time", "5", container.name)


def run_to_its_end(
    image: str,
    *command: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    network: str = "none",
    limits: Sequence[str] = HARDENED,
) -> subprocess.CompletedProcess[str]:
    """Run a container, with the image's own command or another, until it ends."""
    variables = [f"--env={name}={value}" for name, value in (environment or {}).items()]
    return subprocess.run(
        [*RUN, "--rm", *limits, f"--network={network}", *variables, *options, image, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def podman(*arguments: str) -> str:
    """Run podman and give what it says."""
    return subprocess.run(
        ["podman", *arguments], stdout=subprocess.PIPE, text=True, check=True, timeout=300
    ).stdout


def plain_client() -> dict[str, str]:
    """The environment without what would send a client elsewhere."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
