"""debian.py SOURCE: builds the Debian packages of SOURCE, has lintian read them, installs them into a new system
(debootstrap), uses them there, and purges them: no file is left. Needs root."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
NAMES = ("libpoolmalloc0", "libpoolmalloc-dev", "poolmalloc")


def say(text):
    print("== " + text, flush=True)


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode:
        sys.exit(f"{done.stdout}\ndebian.py: exit status {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def packages_build(source, folder):
    """Of what git knows, as it lies there."""
    copy = folder / "poolmalloc"
    for name in run("git", "-C", source, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (source / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, copy / name, follow_symlinks=False)
    settings = {"DEB_BUILD_OPTIONS": f"nocheck parallel={os.cpu_count()}", "DEB_BUILD_PROFILES": "nocheck"}
    run("dpkg-buildpackage", "-us", "-uc", "-b", cwd=copy, env={**os.environ, **settings})
    found = run("lintian", "--allow-root", "--display-info", "--fail-on", "error,warning,info", "--suppress-tags", ",".join(ACCEPTED),
                *folder.glob("*.changes"))
    print(found, end="")
    return [next(folder.glob(f"{name}_*.deb")) for name in NAMES]


# What lintian would like and this package cannot have.
ACCEPTED = ()


def system_make(folder):
    run("debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, folder, MIRROR)
    for path in (folder / "etc/apt/sources.list", folder / "usr/sbin/policy-rc.d"):
        path.unlink(missing_ok=True)
    (folder / "etc/apt/sources.list").write_text(f"deb {MIRROR} {SUITE} main\n")
    run("mount", "-t", "proc", "proc", folder / "proc")


def files_of(system):
    """Without what apt and dpkg keep for themselves."""
    skipped = re.compile(r"^(proc|sys|dev|tmp|root|run|var/(cache|log|lib/(apt|dpkg)))(/|$)")
    found = set()
    for where, folders, files in os.walk(system):
        below = os.path.relpath(where, system)
        folders[:] = [name for name in folders if not skipped.match(os.path.normpath(os.path.join(below, name)))]
        found.update(os.path.normpath(os.path.join(below, name)) for name in files + folders)
    return found


def system_use(system, packages):
    def inside(*command):
        return run("chroot", system, "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", *command)

    inside("apt-get", "update")
    inside("apt-get", "install", "-y", "--no-install-recommends", "gcc", "libc6-dev", "pkgconf")
    before = files_of(system)
    for package in packages:
        shutil.copy(package, system / "tmp")
    for count, names in ((1, NAMES[:1]), (2, NAMES[::2]), (3, NAMES)):
        say(f"installing {' '.join(names)}")
        inside("apt-get", "install", "-y", "--no-install-recommends", *(f"/tmp/{p.name}" for p in packages if p.name.split("_")[0] in names))
        if count == 2:
            print(inside("poolmalloc", "run", "--stats", "exit", "--", "sort", "/etc/passwd").splitlines()[-1])
    shutil.copy(pathlib.Path(sys.argv[1]) / "debian/tests/smoke", system / "tmp/smoke")
    print(inside("sh", "/tmp/smoke").splitlines()[-1])
    say("purging")
    inside("apt-get", "purge", "-y", "--auto-remove", *NAMES)
    left = files_of(system) - before - {"etc/ld.so.cache"}
    if left:
        sys.exit("debian.py: left behind: " + " ".join(sorted(left)))


def main():
    if os.geteuid() != 0:
        sys.exit("debian.py: needs root, for debootstrap and chroot")
    source = pathlib.Path(sys.argv[1]).resolve()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="poolmalloc-"))
    system = folder / "system"
    try:
        say("building the packages")
        packages = packages_build(source, folder)
        say(f"a new system ({SUITE})")
        system_make(system)
        system_use(system, packages)
        say("nothing is left")
    finally:
        subprocess.run(["umount", system / "proc"], check=False, stderr=subprocess.DEVNULL)
        if not os.path.ismount(system / "proc"):
            shutil.rmtree(folder, ignore_errors=True)


main()
