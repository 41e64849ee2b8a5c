# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # victim, stop_by, started and under belong to zoo.sh
# The programs of the zoo, each under a workload that does not end by itself. To be sourced.

all_programs=(python perl ruby node lua sqlite cc1plus clang git imagemagick ghostscript java gdb redis nginx postgres memcached)

install_zoo() {
    local package
    local -a missing=()
    for package in python3 perl ruby nodejs lua5.4 sqlite3 g++ clang git imagemagick ghostscript default-jre-headless gdb redis-server \
        redis-tools nginx-light postgresql memcached procps libtcmalloc-minimal4 libjemalloc2; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    [ "$(id -u)" = 0 ] || fail "not installed: ${missing[*]}"
    # Services are not to start: the zoo starts its own.
    printf '#!/bin/sh\nexit 101\n' >"$zoo/policy-rc.d"
    chmod +x "$zoo/policy-rc.d"
    [ -e /usr/sbin/policy-rc.d ] || { cp "$zoo/policy-rc.d" /usr/sbin/policy-rc.d && added_policy=yes; }
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >"$zoo/apt.log" 2>&1 ||
        fail "apt-get failed: $(tail -n 3 "$zoo/apt.log")"
    [ -z "${added_policy:-}" ] || rm /usr/sbin/policy-rc.d
}

# A program that is its own victim.
alone() {
    "${under[@]}" "$@" >/dev/null 2>&1 &
    victim=$!
    started+=("$!")
}

start_python() {
    alone /usr/bin/python3 -c '
import random, threading
def work(seed):
    r, d = random.Random(seed), {}
    while True:
        k = r.randrange(100000)
        d[k] = [str(k)] * r.randrange(60)
        if len(d) > 30000: d.pop(next(iter(d)))
for seed in range(3): threading.Thread(target=work, args=(seed,), daemon=True).start()
work(9)'
}

start_perl() {
    alone perl -e 'my %h; while (1) { my $k = int(rand(100000)); $h{$k} = "x" x int(rand(500)); delete $h{int(rand(100000))}; }'
}

start_ruby() {
    alone ruby -e 'h = {}; loop { k = rand(100000); h[k] = "x" * rand(700); h.delete(rand(100000)); (h[:l] ||= {})[k % 999] = [k] * (k % 40) }'
}

start_node() {
    alone node -e 'let a = []; for (;;) { a.push({ x: Math.random().toString(36), b: Buffer.alloc(Math.random() * 9000) }); if (a.length > 2e4) a = a.slice(1e4); }'
}

start_lua() {
    alone lua5.4 -e 'local t = {} while true do local k = math.random(100000) t[k] = string.rep("x", math.random(600)) t[math.random(100000)] = nil end'
}

start_sqlite() {
    alone sh -c 'exec sqlite3 work.db <<END
PRAGMA cache_size=20000; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX i ON t(b);
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) INSERT INTO t SELECT x, hex(randomblob(x % 200)) FROM c;
END'
}

write_program() {
    cat >work.cc <<'END'
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <unordered_map>
#include <vector>
template <int N> struct chain { static int go(int x) { std::map<int, std::vector<std::string>> m; m[x].push_back("a"); return chain<N - 1>::go(x + int(m.size())); } };
template <> struct chain<0> { static int go(int x) { return x; } };
int main() { std::regex r("a+b*"); std::unordered_map<int, std::function<int(int)>> u; u[1] = [](int x) { return x; }; std::cout << std::regex_match("aab", r) << u[1](chain<150>::go(1)); }
END
}

start_cc1plus() {
    write_program
    stop_by=SYS
    alone "$(g++ -print-prog-name=cc1plus)" -quiet -O2 -D_GNU_SOURCE -imultiarch x86_64-linux-gnu work.cc -o /dev/null
}

start_clang() {
    write_program
    stop_by=gcore
    alone "$(readlink -f "$(command -v clang++)")" -cc1 -emit-obj -O2 -internal-isystem /usr/include/c++/12 -internal-isystem /usr/include/x86_64-linux-gnu/c++/12 \
        -internal-isystem "$(clang -print-resource-dir)/include" -internal-externc-isystem /usr/include/x86_64-linux-gnu -internal-externc-isystem /usr/include \
        -fcxx-exceptions -fexceptions -o /dev/null work.cc
}

start_git() {
    git init -q repository
    tar -C /usr/share --exclude='*.gz' -cf - doc | tar -C repository -xf -
    git -C repository add -A
    git -C repository -c user.name=zoo -c user.email=zoo@zoo commit -q -m zoo
    git -C repository repack -q -adf # so that the victim finds something to do
    cd repository || return
    alone git -c pack.threads=2 pack-objects --all --no-reuse-delta --window=2000 --depth=100 --stdout
}

start_imagemagick() {
    alone convert -size 900x700 plasma:fractal -blur 0x9 -distort Perspective '0,0 20,30 800,0 700,80 0,600 30,550 800,600 790,500' -blur 0x20 -emboss 9 -blur 0x30 out.png
}

start_ghostscript() {
    alone gs -q -dBATCH -dNOPAUSE -sDEVICE=png16m -r600 -sOutputFile=/dev/null -c '{ /s 200 string def /d 500 dict def 0 1 400 { d exch dup 30 string cvs exch put } for newpath 300 300 rand 200 mod 0 360 arc fill } loop'
}

start_java() {
    cat >Work.java <<'END'
import java.util.*;
public class Work {
    public static void main(String[] a) throws Exception {
        for (int i = 0; i < 4; i++) new Thread(() -> { Map<Integer, byte[]> m = new HashMap<>(); Random r = new Random();
            while (true) { m.put(r.nextInt(5000), new byte[r.nextInt(2000)]); java.util.zip.Deflater d = new java.util.zip.Deflater();
                d.setInput(new byte[3000]); d.finish(); d.deflate(new byte[4000]); d.end(); } }).start();
    }
}
END
    if command -v javac >/dev/null; then
        javac Work.java && alone java -Xmx128m -cp . Work
    else
        alone java -Xmx128m Work.java
    fi
}

start_gdb() {
    alone gdb -q -nx -batch -ex 'maintenance expand-symtabs' -ex 'info functions' -ex 'info types' "$heapcheck"
}

# A load that goes on until it is ended.
load() {
    (while :; do "$@" >/dev/null 2>&1 || sleep 0.05; done) &
    started+=("$!")
}

start_redis() {
    alone redis-server --port 0 --unixsocket "$PWD/redis.sock" --save '' --dir "$PWD"
    load redis-benchmark -s "$PWD/redis.sock" -q -n 100000 -d 300 -r 20000 -t set,lpush,lpop,sadd,hset,zadd,mset
    sleep 0.5
}

start_nginx() {
    mkdir -p logs
    cat >nginx.conf <<END
daemon off; master_process off; error_log $PWD/logs/error; pid $PWD/pid; worker_rlimit_core 2000m;
events { worker_connections 64; }
http { access_log off; server { listen unix:$PWD/nginx.sock; root /usr/share; gzip on; gzip_types *; autoindex on; } }
END
    alone nginx -p "$PWD" -c "$PWD/nginx.conf"
    load curl -s --unix-socket "$PWD/nginx.sock" -H 'Accept-Encoding: gzip' 'http://x/common-licenses/[GPL-1,GPL-2,GPL-3,Artistic]' 'http://x/doc/' 'http://x/doc/bash/'
    sleep 0.5
}

start_memcached() {
    alone memcached -u "$(id -un)" -s "$PWD/memcached.sock" -m 32 -t 3
    load /usr/bin/python3 -c "
import os, random, socket
s = socket.socket(socket.AF_UNIX); s.connect('$PWD/memcached.sock')
for n in range(20000):
    b = os.urandom(random.randrange(1, 4000))
    s.sendall(b'set k%d 0 0 %d\r\n' % (random.randrange(20000), len(b)) + b + b'\r\n'); s.recv(64)"
    sleep 0.5
}

# The victim is a backend; PostgreSQL does not run as root.
start_postgres() {
    local bin as=() tries=0
    bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' | sort | tail -n 1)
    [ "$(id -u)" != 0 ] || as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    mkdir data
    [ "$(id -u)" != 0 ] || chown postgres data
    "${as[@]}" "$bin/initdb" -A trust -N -D data >/dev/null
    "${as[@]}" "${under[@]}" "$bin/postgres" -D data -k "$PWD" -c listen_addresses= -c fsync=off -c jit=off -c restart_after_crash=off &
    started+=("$!")
    until "${as[@]}" psql -h "$PWD" -c 'SELECT 1' postgres >/dev/null 2>&1 || ((++tries > 100)); do sleep 0.1; done
    # One session that never ends: a backend that is chosen is still there when it is to be stopped.
    "${as[@]}" psql -h "$PWD" -c "SET work_mem='200MB'" -c "DO \$\$ BEGIN LOOP PERFORM count(*) FROM (SELECT md5(x::text) m, array_agg(x) FROM generate_series(1, 300000) x GROUP BY 1 ORDER BY 1) q; END LOOP; END \$\$" postgres >/dev/null 2>&1 &
    started+=("$!")
    tries=0
    until victim=$(pgrep -f 'postgres: .* DO' | head -n 1) && [ -n "$victim" ] || ((++tries > 100)); do sleep 0.1; done
}
