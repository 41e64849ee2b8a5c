#!/usr/bin/env python3
"""Records in a store: the questions "top groups", "new since a version", "bytes by site" in DuckDB and PostgreSQL, timed.

usage: store.py [--count N] FOLDER

Makes N records as `heapcheck import` writes them (10^7 by default, from 2,000 sites in 400 versions' builds), puts them into both stores and asks.
Needs duckdb (pip install duckdb) and PostgreSQL's server programs; the cluster is made in FOLDER, listens on a socket there, and is ended again.
"""

import argparse
import glob
import os
import pwd
import random
import shutil
import subprocess
import sys
import time

import duckdb

COLUMNS = """key, key_text, kind, tool, process, pid, "bytes", blocks, json_extract_string(attributes, '$.version') AS version, id"""

# The same in both stores. A leak's bytes are the most of each process, added over processes, as in `heapcheck triage bytes`.
QUESTIONS = {
    "top groups": """
        SELECT key, min(key_text) AS bug, count(*) AS errors, count(DISTINCT pid) AS processes
        FROM records GROUP BY key ORDER BY errors DESC, key LIMIT 20""",
    "new since 1.39": """
        SELECT key, min(key_text) AS bug, count(*) AS errors FROM records
        WHERE version = '1.39' AND key NOT IN (SELECT key FROM records WHERE version < '1.39' GROUP BY key)
        GROUP BY key ORDER BY errors DESC, key LIMIT 20""",
    "bytes by site": """
        SELECT key, min(bug) AS site, sum(most) AS bytes FROM
          (SELECT key, min(key_text) AS bug, pid, max(bytes) AS most FROM records
           WHERE kind = 'memory-leak' GROUP BY key, pid) AS processes
        GROUP BY key ORDER BY bytes DESC, key LIMIT 20""",
}


def make(path, count):
    """Lines of `import`, without stacks, which no question here asks for. Sites 1,950 to 1,999 are new in the last version."""
    random.seed(1)
    sites = []
    for site in range(2000):
        kind = "memory-leak" if site % 2 else "heap-overrun"
        text = f"{kind} | site_{site} | caller | main"
        sites.append((f'","tool":"asan","kind":"{kind}","process":"server","key":"v1:{random.getrandbits(64):016x}","key_text":"{text}",', site % 2))
    # Few sites have most of the errors.
    picks = [min(int(random.paretovariate(0.6)) - 1, 10 ** 9) * 7919 for _ in range(1 << 20)]
    with open(path, "wb") as packed:
        gzip = subprocess.Popen(["gzip", "-1"], stdin=subprocess.PIPE, stdout=packed)
        for first in range(0, count, 50_000):
            lines = []
            for number in range(first, min(first + 50_000, count)):
                version = number * 40 // count
                middle, is_leak = sites[picks[number * 31 & 0xfffff] % (2000 if version == 39 else 1950)]
                blocks = number % 97 + 1
                sums = f'"bytes":{16 * blocks},"blocks":{blocks}' if is_leak else '"bytes":null,"blocks":null'
                lines.append(f'{{"schema_version":1,"record":"error","id":"{number:032x}{middle}{sums},"pid":{number // 500},'
                             f'"attributes":{{"version":"1.{version:02d}"}}}}\n')
            gzip.stdin.write("".join(lines).encode())
        gzip.stdin.close()
        assert gzip.wait() == 0


def timed(name, ask):
    begin = time.monotonic()
    rows = ask()
    seconds = time.monotonic() - begin
    print(f"  {name:<16} {seconds:6.2f} s   {len(rows)} rows, the first: {rows[0] if rows else None}", flush=True)
    return [tuple(str(field) for field in row) for row in rows]


def duck(folder, lines):
    store = duckdb.connect(os.path.join(folder, "records.duckdb"))
    begin = time.monotonic()
    store.execute(f"""CREATE TABLE records AS SELECT {COLUMNS} FROM read_json('{lines}', format='newline_delimited', columns={{
        key: 'VARCHAR', key_text: 'VARCHAR', kind: 'VARCHAR', tool: 'VARCHAR', process: 'VARCHAR', pid: 'BIGINT',
        bytes: 'BIGINT', blocks: 'BIGINT', attributes: 'JSON', id: 'VARCHAR'}})""")
    print(f"DuckDB {duckdb.__version__}: read in {time.monotonic() - begin:.1f} s", flush=True)
    answers = {name: timed(name, lambda: store.execute(sql).fetchall()) for name, sql in QUESTIONS.items()}
    store.execute(f"COPY (SELECT key, key_text, kind, tool, process, pid, bytes, blocks, version FROM records) TO '{folder}/flat.csv' (HEADER false)")
    store.close()
    return answers


def postgres(folder):
    """Its server does not run as root, so under root it runs as the user that its package made."""
    binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    data = os.path.join(folder, "cluster")
    os.mkdir(data)
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:
        shutil.chown(data, "postgres")
        os.chmod(folder, 0o755)
    as_user = ["runuser", "-u", user, "--"] if os.getuid() == 0 else []
    tool = lambda name, *more: subprocess.run([*as_user, os.path.join(binaries, name), *more], check=True, stdout=subprocess.DEVNULL, cwd="/")
    tool("initdb", "-D", data, "-A", "trust", "--no-sync", "-U", user)
    server = subprocess.Popen([*as_user, os.path.join(binaries, "postgres"), "-D", data, "-k", data, "-c", "listen_addresses=",
                               "-c", "shared_buffers=1GB", "-c", "work_mem=256MB", "-c", "max_parallel_workers_per_gather=2", "-c", "maintenance_work_mem=512MB", "-c", "jit=off", "-c", "fsync=off",
                               "-c", "max_wal_size=4GB", "-c", "wal_level=minimal", "-c", "max_wal_senders=0"],
                              cwd="/", stderr=subprocess.DEVNULL)
    query = lambda sql, source=None: subprocess.run(
        ["psql", "-h", data, "-U", user, "-d", "postgres", "-At", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", sql],
        check=True, capture_output=True, text=True, stdin=source).stdout
    try:
        for _ in range(100):
            if subprocess.run(["pg_isready", "-q", "-h", data, "-U", user]).returncode == 0:
                break
            time.sleep(0.2)
        begin = time.monotonic()
        with open(os.path.join(folder, "flat.csv"), "rb") as flat:
            # In one transaction with its table's creation a COPY writes no log of what it does.
            subprocess.run(["psql", "-h", data, "-U", user, "-d", "postgres", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-c", """
                CREATE TABLE lines (key text COLLATE "C", key_text text, kind text, tool text, process text, pid bigint, bytes bigint, blocks bigint, version text)""",
                            "-c", "COPY lines FROM STDIN (FORMAT csv)"], check=True, stdin=flat)
        loaded = time.monotonic()
        # Straight from the lines, an index that has all that is asked for: it is in order, so that nothing is hashed or sorted, and workers share it.
        # (key, pid) repeats, which an index keeps once. `count(DISTINCT pid)` would be asked of one worker: processes are counted as the rows of groups.
        query("CREATE INDEX lines_key_pid ON lines (key, pid)")
        query("VACUUM ANALYZE lines")
        indexed = time.monotonic()
        # Questions are about groups, versions and processes, so that is what is kept beside the lines; a nightly job adds to it.
        query("CREATE TABLE groups AS SELECT row_number() OVER ()::int AS site, key, min(key_text) AS key_text, min(kind) AS kind FROM lines GROUP BY key")
        query("CREATE TABLE by_process AS SELECT site, pid, count(*)::int AS errors, max(bytes) AS most FROM lines JOIN groups USING (key) GROUP BY site, pid")
        query("CREATE TABLE by_version AS SELECT site, version, count(*)::int AS errors FROM lines JOIN groups USING (key) GROUP BY site, version")
        query("VACUUM ANALYZE")
        print(f"PostgreSQL {query('SHOW server_version').split()[0]}: read in {loaded - begin:.1f} s, indexed in {indexed - loaded:.1f} s, its sums made in {time.monotonic() - indexed:.1f} s, "
              f"{query('SELECT count(*) FROM by_process').strip()} rows by process", flush=True)
        questions = {
            "top groups": """SELECT key, key_text, errors, processes FROM groups JOIN
                (SELECT site, sum(errors) AS errors, count(*) AS processes FROM by_process GROUP BY site) AS sums USING (site)
                ORDER BY errors DESC, key LIMIT 20""",
            "new since 1.39": """SELECT key, key_text, errors FROM groups JOIN by_version AS new USING (site) WHERE version = '1.39'
                AND NOT EXISTS (SELECT FROM by_version AS old WHERE old.site = new.site AND old.version < '1.39') ORDER BY errors DESC, key LIMIT 20""",
            "bytes by site": """SELECT key, key_text, bytes FROM groups JOIN
                (SELECT site, sum(most) AS bytes FROM by_process GROUP BY site) AS sums USING (site)
                WHERE kind = 'memory-leak' ORDER BY bytes DESC, key LIMIT 20""",
        }
        raw = """SELECT key, (SELECT key_text FROM lines WHERE lines.key = top.key LIMIT 1), errors, processes FROM
                (SELECT key, sum(errors) AS errors, count(*) AS processes FROM (SELECT key, pid, count(*) AS errors FROM lines GROUP BY key, pid) AS by_process
                 GROUP BY key ORDER BY errors DESC, key LIMIT 20) AS top ORDER BY errors DESC, key"""
        rows = lambda sql: [row.split("\t") for row in query(sql).splitlines()]
        straight = timed("top groups (raw)", lambda: rows(raw))
        answers = {name: timed(name, lambda: rows(sql)) for name, sql in questions.items()}
        assert straight == answers["top groups"], "the lines and their sums differ"
        return answers
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10 ** 7)
    parser.add_argument("folder")
    arguments = parser.parse_args()
    folder = os.path.abspath(arguments.folder)
    os.makedirs(folder, exist_ok=True)
    lines = os.path.join(folder, "records.ndjson.gz")
    make(lines, arguments.count)
    print(f"{arguments.count} records, {os.path.getsize(lines) / 2**20:.0f} MiB packed", flush=True)
    first = duck(folder, lines)
    os.remove(lines)
    second = postgres(folder)
    same = first == second
    print("both stores give the same answers" if same else f"the stores differ: {first} {second}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
