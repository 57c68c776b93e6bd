"""Runs one real program without and with the interposer: standard output byte for byte, and the exit status, must be the
same, and standard error free of our name. A program that is not installed fails the test.

Where the statistics count operations, at least nine in ten requests of up to 32 KiB must have been served by pools.
Usage: run.py NAME --interposer LIB --source REPOSITORY
"""
import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

SERVED_BY_POOLS = 0.90
REGRESSION = ["/usr/bin/python3", "-m", "test", "-q", "--timeout=1400"]

# What must be installed for each: the commands that are started.
PROGRAMS = {}


class Failed(Exception):
    pass


def program(*commands, shared=True, status_only=False):
    """Registers a program. `shared`: its share of requests served by pools is judged.
    `status_only`: it prints times and judges itself, so that a status of 0 is all that can be asked."""
    def register(build):
        PROGRAMS[build.__name__] = (build, commands, shared, status_only)
        return build
    return register


def script(text):
    return ["sh", "-e", "-c", text]


# --- The programs: each gives the command to run in an empty directory --------------------------------------------------

@program("/usr/bin/python3")
def python_objects(_):
    return ["/usr/bin/python3", "-c", """
import collections, re, json
words = [str(i * 7919 % 100003) for i in range(200000)]
count = collections.Counter(w[:3] for w in words)
tree = {}
for w in words:
    node = tree
    for c in w:
        node = node.setdefault(c, {})
text = json.dumps(tree, sort_keys=True)
print(len(text), count.most_common(5), len(re.findall('[0-9]+', text)))
print(sum(len(json.loads(text)) for _ in range(3)))
del tree, words
print(sorted(bytes(i % 251 for i in range(n)) for n in range(0, 3000, 7))[17].hex()[:60])
"""]


@program("/usr/bin/python3", shared=False, status_only=True)
def python_dict(_):
    return REGRESSION + ["test_dict"]


@program("/usr/bin/python3", shared=False, status_only=True)
def python_list(_):
    return REGRESSION + ["test_list"]


@program("/usr/bin/python3", shared=False, status_only=True)
def python_json(_):
    return REGRESSION + ["test_json"]


@program("/usr/bin/python3", shared=False, status_only=True)
def python_threading(_):
    return REGRESSION + ["test_threading"]


@program("/usr/bin/python3", shared=False, status_only=True)
def python_spawn(_):
    """The whole of it takes minutes: these are the parts that start processes and share memory between them."""
    return REGRESSION + ["test_multiprocessing_spawn", "-m", "WithProcessesTestPool", "-m", "WithProcessesTestQueue",
                         "-m", "WithThreadsTest*"]


@program("/usr/bin/python3", shared=False, status_only=True)
def python_spawn_whole(_):
    return REGRESSION + ["test_multiprocessing_spawn"]


@program("sqlite3")
def sqlite(_):
    return script("""sqlite3 :memory: "
create table t(id integer primary key, name text, value real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
    insert into t select i, 'name ' || (i * 7919 % 100003), i * 0.5 from n;
create index by_name on t(name);
select count(*), sum(value), min(name), max(name) from t;
select substr(name, 1, 7) as k, count(*), avg(value) from t group by k order by 2 desc, 1 limit 20;
select a.id, b.id from t a join t b on b.id = a.id + 100000 where a.name like '%77%' order by 1 limit 20;
delete from t where id % 3 = 0; vacuum;
select count(*), total(length(name)) from t; pragma integrity_check;" """)


@program("perl")
def perl(_):
    return ["perl", "-e", r"""
use strict; use warnings;
my (%count, @list);
for my $i (1 .. 300000) { my $w = 'w' . ($i * 7919 % 50021); $count{$w}++; push @list, [$i, $w, { n => $i }] if $i % 7 == 0; }
my @sorted = sort { $a->[1] cmp $b->[1] || $a->[0] <=> $b->[0] } @list;
print scalar(keys %count), " ", join(",", map { "$_->[1]:$_->[2]{n}" } @sorted[0 .. 9]), "\n";
my $text = join ' ', map { $_->[1] } @sorted; my $n = 0;
$n++ while $text =~ /w(\d)\d*\1\b/g;
$text =~ s/(\d+)/<$1>/g;
print "$n ", length($text), "\n";
"""]


@program("git")
def git(source):
    """Clone, collect and check: of the repository itself if it has commits, else of one made from its files."""
    return script("""
export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git config --global user.name t; git config --global user.email t@example.org; git config --global safe.directory '*'
git config --global init.defaultBranch main
if git -C "%s" rev-parse -q --verify HEAD >/dev/null 2>&1; then
    git clone -q --no-local "%s" copy
else
    git init -q copy; cp -r "%s/tests" copy/tests; git -C copy add -A; git -C copy commit -q -m all
fi
cd copy
for i in $(seq 1 200); do echo "line $i" >> many; echo $i > file-$((i %% 17)); git add -A; git commit -q -m "commit $i"; done
git gc -q --aggressive --prune=now
git fsck --full 2>/dev/null
git log --format=%%H%%s | tail -n 200 | sha1sum
git diff --stat HEAD~150 HEAD | tail -n 1; git blame many | cut -d' ' -f1 | sha1sum
""" % (source, source, source))


def compile_all(compiler, sources, options):
    """Object code is a function of the source: the same with every allocator."""
    return script('for s in %s; do %s %s -g0 -O2 -c "$s" -o object.o; sha1sum < object.o; done'
                  % (" ".join("'%s'" % one for one in sources), compiler, options))


@program("gcc")
def gcc(source):
    return compile_all("gcc", sorted(glob.glob(source + "/tests/blackbox/[a-m]*.c")), "-fno-builtin -I'%s/include'" % source)


@program("g++")
def gxx(source):
    return compile_all("g++", sorted(glob.glob(source + "/tests/blackbox/o*.cc")), "-std=c++17 -frandom-seed=1")


def redis_commands(requests):
    return script("""
redis-server --port 0 --unixsocket "$PWD/s" --save '' --appendonly no --enable-debug-command local --dir "$PWD" >log 2>&1 & server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for i in $(seq 1 5000); do [ -S s ] && break; sleep 0.1; done
redis-benchmark -s s -q -n %d -r 20000 -d 100 -P 16 -t set,get,lpush,rpop,sadd,hset,zadd,lrange_100 >/dev/null
cli() { redis-cli -s s "$@"; }
cli flushall
cli eval 'for i = 1, 50000 do redis.call("set", "k" .. i, string.rep("v", i %% 500)) end return 1' 0
cli eval 'local n = 0 for i = 1, 50000 do n = n + #redis.call("get", "k" .. i) end return n' 0
cli eval 'for i = 1, 50000, 2 do redis.call("del", "k" .. i) end return redis.call("dbsize")' 0
cli save; cli debug reload; cli dbsize; cli get k444
cli shutdown nosave || true
wait $server || true
""" % requests)


@program("redis-server", "redis-benchmark", "redis-cli", shared=False)
def redis(_):
    return redis_commands(50000)


@program("redis-server", "redis-benchmark", "redis-cli", shared=False)
def redis_long(_):
    return redis_commands(3000000)


@program("node", shared=False)
def node(_):
    return ["node", "-e", """
const words = []; for (let i = 0; i < 200000; i++) words.push('w' + (i * 7919 % 100003));
const counts = new Map(); for (const w of words) counts.set(w.slice(0, 4), (counts.get(w.slice(0, 4)) || 0) + 1);
const text = JSON.stringify([...counts].sort()); const crypto = require('crypto'), zlib = require('zlib');
const buffers = []; for (let i = 0; i < 2000; i++) buffers.push(Buffer.alloc(i * 13 % 5000, i & 255));
const packed = zlib.gzipSync(Buffer.concat(buffers));
console.log(counts.size, text.length, crypto.createHash('sha256').update(text).digest('hex'),
            zlib.gunzipSync(packed).length);
const { Worker, isMainThread } = require('worker_threads'); let left = 4;
for (let i = 0; i < 4; i++) new Worker('let s = []; for (let i = 0; i < 1e5; i++) s.push({i}); ' +
    'require("worker_threads").parentPort.postMessage(s.length)', { eval: true }).on('message', n => { if (--left == 0) console.log('workers', n); });
"""]


@program("lua5.4")
def lua(_):
    return ["lua5.4", "-e", """
local t, count = {}, {}
for i = 1, 300000 do local w = 'w' .. (i * 7919 % 50021); count[w] = (count[w] or 0) + 1; if i % 5 == 0 then t[#t + 1] = {w, i} end end
table.sort(t, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
local parts = {} for i = 1, 10000 do parts[i] = t[i][1] .. ':' .. t[i][2] end
local s = table.concat(parts, ',')
print(#t, #s, s:sub(1, 200), select(2, s:gsub('w(%d)%d*:', '<%1>')))
t, parts = nil, nil collectgarbage() print(collectgarbage('count') < 20000)
"""]


@program("php")
def php(_):
    """Its extensions are loaded with RTLD_DEEPBIND."""
    return ["php", "-r", """
$db = new PDO('sqlite::memory:');
$db->exec('create table t (i integer, w text)');
$in = $db->prepare('insert into t values (?, ?)');
for ($i = 0; $i < 20000; $i++) $in->execute([$i, 'w' . ($i * 7919 % 5003)]);
foreach ($db->query('select w, count(*) c, sum(i) s from t group by w order by s desc limit 5') as $row) echo json_encode($row), "\\n";
$c = curl_init('file:///etc/hostname'); curl_setopt($c, CURLOPT_RETURNTRANSFER, true); echo strlen(curl_exec($c)) > 0, "\\n";
$s = str_repeat('äöü€', 10000); echo mb_strlen($s), mb_strtoupper(mb_substr($s, 1, 3)), mb_convert_encoding('ä', 'UTF-16'), "\\n";
echo preg_match_all('/w(\\d)\\d*/', implode(',', array_map(fn($i) => 'w' . $i, range(1, 100000)))), "\\n";
"""]


@program("openssl", shared=False)
def openssl(_):
    """What speed prints is times, and thrown away; digests and signatures after it can be compared."""
    return script("""
openssl speed -seconds 1 -bytes 1024 -multi 2 sha256 aes-128-cbc >/dev/null 2>&1
openssl genrsa -out key.pem 2048 2>/dev/null
head -c 3000000 /dev/zero | openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -out data
openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:x -in data | openssl dgst -sha256
openssl dgst -sha256 -sign key.pem -out signature data
openssl rsa -in key.pem -pubout -out public.pem 2>/dev/null
openssl dgst -sha256 -verify public.pem -signature signature data
""")


@program("sort", "awk", shared=False)
def sort(_):
    """A million lines, with threads and with little memory, so that it merges from files."""
    return script("""
awk 'BEGIN { for (i = 0; i < 1000000; i++) print (i * 7919) % 1000003, "line", i }' > lines
LC_ALL=C sort --parallel=2 lines | sha1sum
LC_ALL=C sort -n -k3 -S 4M -r lines | sha1sum
LC_ALL=C sort -u -k1,1 lines | wc -l
""")


@program("gdb", "gcc", shared=False)
def gdb(source):
    return script("""
gcc -g -O0 -fno-builtin -pthread "%s/tests/blackbox/fork_reuse.c" -o program
gdb -nx -batch -ex 'set startup-with-shell off' -ex 'set debuginfod enabled off' -ex 'set confirm off' -ex 'set width 0' \
    -ex 'info functions child_' -ex 'info line main' -ex 'ptype struct timespec' -ex 'disassemble rss_kib' program
""" % source)


@program("man", shared=False)
def man(source):
    """The formatter's pipeline of many small processes, on a page of our own: bare machines have no others."""
    return script(r"""
{ echo '.TH BLACKBOX 1'; echo '.SH NAME'; echo 'blackbox \- a page'; echo '.SH DESCRIPTION'
  for i in $(seq 1 2000); do echo ".TP"; echo ".B option-$i"; echo "Some text with \fIitalics\fP, number $i."; done; } > page.1
MANWIDTH=80 man -l ./page.1 | cat
""")


@program("bash", shared=False)
def bash(_):
    """Thousands of forks: command substitutions and subshells."""
    return ["bash", "-c", r"""
total=0; declare -A seen
for i in $(seq 1 2000); do
    word=$(echo "word-$((i * 7919 % 997))"); seen[$word]=$(( ${seen[$word]:-0} + 1 )); ( : ); total=$((total + ${#word}))
done
printf '%s\n' "${!seen[@]}" | sort | tail -n 3; echo $total ${#seen[@]}
for i in $(seq 1 100); do echo $i; done | while read -r n; do echo "$n $(printf '%x' $n)"; done | cksum
"""]


# --- Running and judging ------------------------------------------------------------------------------------------------

def environment(**settings):
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("POOLMALLOC_", "LD_", "MALLOC_", "PYTHON"))}
    keep.update({"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"})
    keep.update(settings)
    return keep


def run(command, **settings):
    directory = tempfile.mkdtemp(prefix="poolmalloc-program-")
    try:
        # The same name each time: programs print and store where they are.
        home = os.path.join(directory, "w")
        os.mkdir(home)
        return subprocess.run(command, cwd=home, env=environment(**settings), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def first_difference(expected, found):
    for number, (one, other) in enumerate(zip(expected.splitlines() + [b"(end)"], found.splitlines() + [b"(end)"]), 1):
        if one != other:
            return "line %d: %r, with the interposer %r" % (number, one[:200], other[:200])
    return "nothing"


def explain(result):
    return (result.stdout[-3000:] + result.stderr[-3000:]).decode(errors="replace")


def compare(plain, preloaded):
    if plain.returncode != preloaded.returncode:
        raise Failed("exit status %d, with the interposer %d\n%s" % (plain.returncode, preloaded.returncode, explain(preloaded)))
    if plain.returncode != 0:
        raise Failed("fails without the interposer too (status %d): the test proves nothing\n%s" % (plain.returncode, explain(plain)))
    if plain.stdout != preloaded.stdout:
        raise Failed("the output differs: " + first_difference(plain.stdout, preloaded.stdout))
    if not plain.stdout:
        raise Failed("the program printed nothing: the test proves nothing")


def run_and_compare(command, library, status_only):
    preloaded = run(command, LD_PRELOAD=library)
    if b"poolmalloc:" in preloaded.stderr:
        raise Failed("the library is not silent: %r" % preloaded.stderr[-500:])
    if not status_only or preloaded.returncode != 0:
        compare(run(command), preloaded)
    return preloaded


def judge_share(command, library):
    """Counts over all processes of the run."""
    reports = tempfile.mkdtemp(prefix="poolmalloc-reports-")
    try:
        run(command, LD_PRELOAD=library, POOLMALLOC_STATS="exit,full", POOLMALLOC_STATS_FORMAT="json",
            POOLMALLOC_STATS_FILE=os.path.join(reports, "%p.json"))
        pooled = forwarded = 0
        for name in glob.glob(os.path.join(reports, "*.json")):
            with open(name, encoding="utf-8") as file:
                for line in file:  # a process that execs itself appends another document
                    totals = json.loads(line)["totals"] if line.strip() else {}
                    pooled += totals.get("pool_calls", 0)
                    forwarded += totals.get("forwarded_small_calls", 0)
    finally:
        shutil.rmtree(reports, ignore_errors=True)
    if pooled + forwarded == 0:
        print("operations are not counted: the share of the pools is not judged")
        return
    share = pooled / (pooled + forwarded)
    print("%.2f %% of %d requests of up to 32 KiB served by pools" % (100 * share, pooled + forwarded))
    if share < SERVED_BY_POOLS:
        raise Failed("that is less than %d %%" % (100 * SERVED_BY_POOLS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(PROGRAMS))
    parser.add_argument("--interposer", required=True)
    parser.add_argument("--source", required=True)
    options = parser.parse_args()
    build, commands, shared, status_only = PROGRAMS[options.name]
    try:
        for command in commands:
            if shutil.which(command) is None:
                raise Failed("%s is not installed (scripts/packages/test.txt lists what the tests need)" % command)
        library, command = os.path.abspath(options.interposer), build(os.path.abspath(options.source))
        result = run_and_compare(command, library, status_only)
        if shared:
            judge_share(command, library)
    except Failed as error:
        sys.exit("FAILED %s: %s" % (options.name, error))
    print("%s: %d bytes of output, status %d" % (options.name, len(result.stdout), result.returncode))


if __name__ == "__main__":
    main()
