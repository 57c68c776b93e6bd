"""Other people's programs and their own tests, without the library, with it, and with the hardened one: a table in Markdown (wall and user
seconds), and status 1 only where one that succeeds without does not succeed with it. Services listen on a socket in the scratch folder
or on loopback. What is not installed, or fails without the library too, is told as such.
Usage: run.py --interposer LIB --hardened LIB --source REPOSITORY [--only REGEX] [--log FOLDER]
"""
import argparse
import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE = 600  # seconds, or SLOWER times what the run without the library took, if that is more: what takes longer hangs
SLOWER = 20
PR_SET_CHILD_SUBREAPER = 36

PYTHON = "PYTHONMALLOC=malloc /usr/bin/python3.11 -m test -q -j2 --timeout=600 "
PYTHON_MODULES = """test_array test_ast test_bytes test_codecs test_collections test_ctypes test_decimal test_dict test_fork1 test_gc
test_generators test_hashlib test_io test_itertools test_json test_list test_long test_marshal test_memoryview test_mmap test_pickle
test_posix test_queue test_re test_set test_signal test_ssl test_struct test_subprocess test_thread test_threading test_threading_local
test_tracemalloc test_unicode test_weakref test_zlib"""
PYTHON_CONCURRENT = "test_multiprocessing_fork test_concurrent_futures"  # minutes each, mostly waiting; test_asyncio is longer still

# Each ends by its count, within a minute or so beside a busy machine, and leaves the machine's disk and memory alone.
STRESSORS = """malloc:300000 fork:500 vfork:500 clone:100 brk:20000 mmap:20 mmapfork:1 pthread:500 vm:2000 bigheap:200 memfd:50 mremap:20
stack:20 zombie:200 spawn:100 exec:100 tree:2 qsort:4 hsearch:5 bsearch:5 list:5 skiplist:5 str:50 judy:2 dynlib:500
mlock:2000 madvise:200 sigsegv:500 switch:20000 tsearch:5 zlib:10"""

# The package (a pattern) whose version is shown, and a script for `bash -e`, run in an empty folder; $SOURCE is the repository.
SUITES = {
    "python": ("libpython3.11-testsuite", PYTHON + " ".join(PYTHON_MODULES.split())),
    "python, concurrent": ("libpython3.11-testsuite", PYTHON + PYTHON_CONCURRENT),
    "postgresql": ("postgresql-[0-9]*", """
as() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi; }
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1); here=$PWD
[ "$(id -u)" != 0 ] || chown postgres .
as "$bin/initdb" -D "$here/data" -A trust >initdb.log
as "$bin/pg_ctl" -D "$here/data" -w -t 600 -l "$here/data/log" -o "-c listen_addresses='' -c unix_socket_directories='$here'" start
trap 'as "$bin/pg_ctl" -D "$here/data" -m immediate stop' EXIT
as "$bin/createdb" -h "$here" bench
as "$bin/pgbench" -h "$here" -i -s 2 bench
as "$bin/pgbench" -h "$here" -c 4 -j 2 -t 400 bench
as "$bin/psql" -h "$here" -Atc "select count(*), sum(abalance) from pgbench_accounts" bench
as "$bin/pg_ctl" -D "$here/data" -w -t 600 -m fast stop; trap - EXIT
! grep -E "PANIC|terminated by signal" data/log"""),
    "nginx": ("nginx-light", """
head -c 20000 /dev/urandom | base64 > page.html; port=$((20000 + $$ % 20000))
cat > conf <<TXT
worker_processes 2; pid $PWD/pid; error_log $PWD/errors; daemon off; user root;
events { worker_connections 256; }
http { access_log off; client_body_temp_path $PWD/a; proxy_temp_path $PWD/b; fastcgi_temp_path $PWD/c; uwsgi_temp_path $PWD/d;
scgi_temp_path $PWD/e; gzip on; gzip_types *; server { listen 127.0.0.1:$port; root $PWD; } }
TXT
chmod 755 .; nginx -c "$PWD/conf" -p "$PWD" & server=$!; trap 'kill $server 2>/dev/null || true' EXIT
for i in $(seq 1 600); do (: < /dev/tcp/127.0.0.1/$port) 2>/dev/null && break; sleep 0.1; done
wrk -t2 -c20 -d3s -H 'Accept-Encoding: gzip' --timeout 60s http://127.0.0.1:$port/page.html > out; cat out
if grep -E "Non-2xx|Socket errors" out; then exit 1; fi; kill -QUIT $server; wait $server; trap - EXIT; ! grep -E "exited on signal|emerg" errors"""),
    "redis": ("redis-server", """
redis-server --port 0 --unixsocket "$PWD/s" --save '' --appendonly yes --dir "$PWD" >log 2>&1 & server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for i in $(seq 1 600); do [ -S s ] && break; sleep 0.1; done
redis-benchmark -s s -q -n 20000 -r 20000 -d 200 -P 8 -t set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset
redis-cli -s s bgrewriteaof; redis-cli -s s save; redis-cli -s s memory doctor; redis-cli -s s dbsize
redis-cli -s s shutdown nosave || true; wait $server"""),
    "php": ("php[0-9]*-cli", """
cat > t.php <<'TXT'
<?php foreach (["curl", "mbstring", "pdo_sqlite", "json"] as $e) if (!extension_loaded($e)) exit(3);
$db = new PDO("sqlite::memory:"); $db->exec("create table t(a integer, b text)");
for ($i = 0; $i < 20000; $i++) $rows[] = ["a" => $i, "b" => mb_strtoupper("straße $i")];
$s = $db->prepare("insert into t values(?, ?)"); foreach ($rows as $r) $s->execute([$r["a"], $r["b"]]);
$c = curl_init("file://" . __FILE__); curl_setopt($c, CURLOPT_RETURNTRANSFER, true);
if (strlen(curl_exec($c)) != filesize(__FILE__)) exit(4);
if (count(json_decode(json_encode($rows), true)) != 20000) exit(5);
if ($db->query("select count(*) from t")->fetchColumn() != 20000) exit(6);
preg_match_all("/\\\\d+/", file_get_contents(__FILE__), $m); echo count($m[0]), "\\n";
TXT
php t.php"""),
    "node": ("nodejs", """
cat > t.js <<'TXT'
const { Worker, isMainThread } = require('worker_threads'), zlib = require('zlib'), crypto = require('crypto'), assert = require('assert');
const { execFileSync } = require('child_process');
if (isMainThread) { let left = 4; for (let i = 0; i < 4; i++) new Worker(__filename).on('exit', c => { assert(c == 0); if (!--left) last(); }); }
else { for (let i = 0; i < 300; i++) { const b = crypto.randomBytes(i * 100 + 1); assert(zlib.inflateSync(zlib.deflateSync(b)).equals(b)); } }
function last() { assert(execFileSync(process.execPath, ['-p', '6*7']).toString() == '42\\n'); const m = new Map();
for (let i = 0; i < 1e6; i++) m.set('k' + i, { i }); assert(m.size == 1e6); console.log('good'); }
TXT
node t.js"""),
    "java": ("openjdk-*-jdk-headless", """
cat > T.java <<'TXT'
import java.util.*; import java.util.concurrent.*; import java.util.zip.*;
public class T { public static void main(String[] a) throws Exception {
  ExecutorService pool = Executors.newFixedThreadPool(8); List<Future<Long>> all = new ArrayList<>();
  for (int t = 0; t < 64; t++) { final int seed = t; all.add(pool.submit(() -> { Random r = new Random(seed); long sum = 0;
    for (int i = 0; i < 100; i++) { byte[] b = new byte[r.nextInt(50000) + 1]; r.nextBytes(b); Deflater d = new Deflater(); d.setInput(b); d.finish();
      byte[] to = new byte[b.length + 1000]; int n = d.deflate(to); d.end(); Inflater f = new Inflater(); f.setInput(to, 0, n); byte[] back = new byte[b.length];
      f.inflate(back); f.end(); if (!Arrays.equals(b, back)) throw new Exception("differs"); sum += n; } return sum; })); }
  long sum = 0; for (Future<Long> f : all) sum += f.get(); pool.shutdown(); System.out.println(sum > 0 ? "good" : "bad"); } }
TXT
javac -J-Xmx512m T.java; java -Xmx512m -cp . T | grep good; java -Xmx512m -XX:+UseSerialGC -cp . T | grep good"""),
    "chromium": ("chromium", """
echo '<h1>Text</h1><canvas id=c></canvas><script>let a=[];for(let i=0;i<1e5;i++)a.push({i});document.body.append(a.length)</script>' > p.html
chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$PWD/u" --virtual-time-budget=5000 \\
  --screenshot="$PWD/s.png" "file://$PWD/p.html" 2>errors || { tail -n 20 errors; exit 1; }
[ "$(head -c 4 s.png | tail -c 3)" = PNG ]"""),
    "libreoffice": ("libreoffice-writer-nogui", """
for i in $(seq 1 400); do echo "Paragraph $i with some text, and more of it."; echo; done > t.txt
HOME=$PWD soffice -env:UserInstallation="file://$PWD/u" --headless --convert-to pdf t.txt
[ "$(head -c 4 t.pdf)" = %PDF ]"""),
    "ffmpeg": ("ffmpeg", """
ffmpeg -v error -nostdin -f lavfi -i testsrc=d=4:s=640x360 -f lavfi -i sine=d=4 -c:v mpeg4 -c:a aac -y t.mp4
ffmpeg -v error -nostdin -i t.mp4 -vf scale=320:-1 -c:v libx264 -preset veryfast -threads 4 -y u.mkv; ffmpeg -v error -nostdin -i u.mkv -f framemd5 - | tail -n 3"""),
    "ghostscript": ("ghostscript", """
{ echo '%!PS'; for p in $(seq 1 40); do echo "/Times-Roman findfont 12 scalefont setfont"; for y in $(seq 50 20 700); do
echo "50 $y moveto (page $p, line $y) show"; done; echo showpage; done; } > t.ps
gs -q -dBATCH -dNOPAUSE -sDEVICE=pdfwrite -o t.pdf t.ps; gs -q -dBATCH -dNOPAUSE -sDEVICE=png16m -r40 -o p%d.png t.pdf; [ "$(ls p*.png | wc -l)" = 40 ]"""),
    "git": ("git", """
export HOME=$PWD; git config --global user.name t; git config --global user.email t@example.org; git config --global safe.directory '*'
git init -q r; cp -r "$SOURCE/src" "$SOURCE/tests" r; cd r; git add -A; git commit -q -m all
for i in $(seq 1 60); do echo $i >> f; git add f; git commit -q -m $i; done
git gc -q --aggressive --prune=now; git fsck --full --strict; git clone -q . ../c; git -C ../c log --oneline | wc -l; git bundle create -q ../b --all
git grep -c --threads=4 static -- '*.c' | wc -l; git rebase -q -f HEAD~20"""),
    "make": ("make", 'cmake -S "$SOURCE" -B b -DCMAKE_BUILD_TYPE=Release >/dev/null; make -C b -j4 >log 2>&1 || { tail -n 20 log; exit 1; }; [ -f b/libpoolmalloc.so ]'),
    "apt": ("apt", "apt-cache dump | wc -l; apt-cache stats >/dev/null; apt-get -s -qq install emacs >/dev/null; apt-cache depends emacs | wc -l"),
}
# Without --timeout 0 a stressor that gets nowhere would end in time, and stress-ng says 0 of one whose children die.
for one in STRESSORS.split():
    stressor, count = one.split(":")
    SUITES["stress-ng " + stressor] = ("stress-ng", """
stress-ng --temp-path . --verify --metrics --timeout 0 --vm-bytes 64M --mmap-bytes 16M --mremap-bytes 4M --memfd-bytes 16M \\
  --tree-size 20000 --bigheap-growth 1M --brk-notouch --%s 2 --%s-ops %s 2>&1 | tee out
[ "${PIPESTATUS[0]}" = 0 ]; awk '$4 == "%s" && $5 > 0 { ran = 1 } END { exit !ran }' out""" % (stressor, stressor, count, stressor))



def version(package):
    """Of the first installed package that the pattern fits, less what Debian adds to it; None where there is none."""
    known = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}\\n", package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    installed = [line.split()[1] for line in known.stdout.splitlines() if line.startswith("installed ")]
    return re.sub(r"^\d+:|[-~+].*", "", installed[0]) if installed else None


def end_all():
    """Ends and waits for everything that a suite left running: what loses its parent becomes this process's child."""
    while True:
        with open("/proc/self/task/%d/children" % os.getpid()) as file:
            children = [int(child) for child in file.read().split()]
        if not children:
            return
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def run(script, source, library, log, patience):
    """The status, "hangs" for one that never ends, wall seconds, and user seconds of all its processes."""
    scratch = tempfile.mkdtemp(prefix="poolmalloc-suite-")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("POOLMALLOC_", "LD_", "MALLOC_"))}
    environment.update({"SOURCE": source, "LC_ALL": "C.UTF-8", **({"LD_PRELOAD": library} if library else {})})
    begun, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with open(log, "wb") as file:
        process = subprocess.Popen(["bash", "-e", "-c", script], cwd=scratch, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        try:
            status = process.wait(patience)
        except subprocess.TimeoutExpired:
            status = "hangs"
    wall = time.monotonic() - begun
    end_all()
    shutil.rmtree(scratch, ignore_errors=True)
    return status, wall, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used


def in_force(library):
    """The loader runs a program without a library that it cannot load."""
    maps = subprocess.run(["cat", "/proc/self/maps"], env={"LD_PRELOAD": library}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return os.path.realpath(library) in maps.stdout


def shown(outcome):
    status, wall, user = outcome
    return "%s %.1f / %.1f" % ("good" if status == 0 else status if status == "hangs" else "status %d" % status, wall, user)


def compare(name, libraries, options):
    """One row of the table; how many columns are worse than the first, or None where nothing could be compared."""
    package, script = SUITES[name]
    known = version(package)
    print("| %s | %s |" % (name, known or "-"), end="", flush=True)
    if known is None:
        print(" NOT RUN: no package %s is installed |" % package, flush=True)
        return None
    patience, outcomes = PATIENCE, []
    for column, library in libraries:
        log = os.path.join(options.log, "%s-%s.log" % (re.sub(r"\W+", "-", name), column))
        outcomes.append(run(script, os.path.abspath(options.source), library, log, patience))
        patience = max(patience, SLOWER * outcomes[0][1])
        print(" %s |" % shown(outcomes[-1]), end="", flush=True)
        if outcomes[0][0] != 0:
            print(" FAILS WITHOUT THE LIBRARY: %s |" % log, flush=True)
            return None
    worse = sum(status != 0 for status, _, _ in outcomes)
    print(" WORSE" if worse else "", flush=True)
    return worse


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in ("interposer", "hardened", "source"):
        parser.add_argument("--" + option, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--log", default="build-suites")
    options = parser.parse_args()
    os.makedirs(options.log, exist_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and Python's tests use it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libraries = [("without", None), ("poolmalloc", os.path.abspath(options.interposer)), ("hardened", os.path.abspath(options.hardened))]
    for _, library in libraries[1:]:
        if not in_force(library):
            sys.exit("run.py: programs run without %s: it cannot be loaded" % library)
    print("| program | version | %s |\n|%s" % (" | ".join(column for column, _ in libraries), " --- |" * (2 + len(libraries))))
    try:
        rows = [compare(name, libraries, options) for name in SUITES if re.search(options.only, name)]
    finally:
        end_all()
    compared = [row for row in rows if row is not None]
    print("%d suites compared, %d could not be, %d runs worse; wall / user seconds; what they printed: %s/" %
          (len(compared), len(rows) - len(compared), sum(compared), options.log))
    return not compared or any(compared)


if __name__ == "__main__":
    sys.exit(main())
