#!/usr/bin/env python3
"""Many cores by a queue: NATS JetStream hands each core to one of several workers; nothing is lost and nothing is said twice.

usage: queue.py [--workers N] [--kill] OUTPUT.ndjson CORE...

Needs nats-server and nats-py (pip install nats-py); HEAPCHECK_BIN names the program. The server is started here, on loopback, with its store in
a folder of its own, and ended again; in a fleet it runs elsewhere, and `worker` is what every machine runs. `--kill` ends a worker at random while
it works (as a machine may) and starts another: what it held is delivered again, and what it had said already is not said twice, because a
line's id is its core's.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from nats.errors import TimeoutError as NatsTimeout

HEAPCHECK = os.environ.get("HEAPCHECK_BIN", "heapcheck")
ACK_WAIT = 20  # seconds until what a worker does not answer for is given to another; a worker that works says so every quarter of it
LINE_LIMIT = 8 << 20  # longest line that the server takes


async def worker(url):
    """Takes cores until there are none for a while."""
    connection = await nats.connect(url)
    stream = connection.jetstream()
    cores = await stream.pull_subscribe("cores.todo", durable="workers", stream="CORES")
    while True:
        try:
            [message] = await cores.fetch(1, timeout=5)
        except NatsTimeout:
            left = await stream.consumer_info("CORES", "workers")
            if left.num_pending == 0 and left.num_ack_pending == 0:
                break
            continue
        path = message.data.decode()
        work = asyncio.create_task(read(path))
        while not (await asyncio.wait([work], timeout=ACK_WAIT / 4))[0]:
            await message.in_progress()
        line = work.result()
        core_id = json.loads(line).get("core_id") or hashlib.sha256(path.encode()).hexdigest()
        # The server drops a message whose id it has: a core that is delivered twice is said once. The answer comes before the receipt.
        await stream.publish("cores.done", line, stream="DONE", headers={"Nats-Msg-Id": core_id})
        await message.ack_sync()
    await connection.close()


async def read(path):
    """One line for one core; `batch` gives the process limits and says errors as lines, too."""
    process = await asyncio.create_subprocess_exec(
        HEAPCHECK, "batch", "--timeout", "300", "--memory", "2G", path,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    out, _ = await process.communicate()
    line = out.strip()
    return line if 0 < len(line) < LINE_LIMIT else json.dumps(
        {"schema_version": 1, "status": "ERROR", "core_file": path, "error": {"message": "no line, or one that is too long"}}).encode()


async def run(arguments, url):
    connection = await nats.connect(url)
    stream = connection.jetstream()
    await stream.add_stream(StreamConfig(name="CORES", subjects=["cores.todo"], retention=RetentionPolicy.WORK_QUEUE))
    await stream.add_stream(StreamConfig(name="DONE", subjects=["cores.done"], duplicate_window=24 * 3600))
    await stream.add_consumer("CORES", ConsumerConfig(durable_name="workers", ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT))
    for core in arguments.cores:
        await stream.publish("cores.todo", core.encode())
    begin = time.monotonic()
    start = lambda: subprocess.Popen([sys.executable, __file__, "--url", url, "-"])
    workers = [start() for _ in range(arguments.workers)]
    killed = 0
    while any(child.poll() is None for child in workers):
        await asyncio.sleep(0.2)
        done = (await stream.stream_info("DONE")).state.messages
        if arguments.kill and killed < 1 + len(arguments.cores) // 40 and done >= (killed + 1) * len(arguments.cores) // 5:
            victims = [child for child in workers if child.poll() is None]
            if victims:
                victim = random.choice(victims)
                victim.send_signal(signal.SIGKILL)
                workers.append(start())
                killed += 1
    seconds = time.monotonic() - begin
    state = (await stream.stream_info("DONE")).state
    lines = await stream.subscribe("cores.done", stream="DONE", ordered_consumer=True)
    with open(arguments.output, "wb") as out:
        for _ in range(state.messages):
            message = await lines.next_msg(timeout=10)
            out.write(message.data + b"\n")
    await connection.close()
    files = [json.loads(line).get("core_file") for line in open(arguments.output)]
    print(f"{len(arguments.cores)} cores, {len(files)} lines, {len(set(files))} of them distinct, {killed} workers killed, "
          f"{arguments.workers} workers, {seconds:.1f} s")
    return 0 if sorted(files) == sorted(arguments.cores) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--url", help="be a worker of this server")
    parser.add_argument("output")
    parser.add_argument("cores", nargs="*")
    arguments = parser.parse_args()
    if arguments.url:
        return asyncio.run(worker(arguments.url))
    with tempfile.TemporaryDirectory() as store, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = os.path.join(store, "nats.conf")
        with open(config, "w") as out:
            out.write(f'listen: "127.0.0.1:{port}"\nmax_payload: {LINE_LIMIT}\njetstream {{ store_dir: "{store}" }}\n')
        server = subprocess.Popen(["nats-server", "-js", "-c", config], stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with socket.socket() as there:
                    if there.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            return asyncio.run(run(arguments, f"nats://127.0.0.1:{port}"))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
