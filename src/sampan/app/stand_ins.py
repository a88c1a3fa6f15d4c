"""Small container images made from Debian packages, for places without a registry.

``python -m sampan.app.stand_ins OUT.tar`` writes a docker archive with the stand-ins the
demo and the end-to-end tests use. They carry the names of the images the seed's manifests ask for
and the label ``io.sampan.stand-in``, since they are not those images.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What packages depend on for their installation only: nothing of it runs in a container.
_INSTALL_TIME = frozenset((
    "adduser", "base-files", "cdebconf", "debconf", "debianutils", "dpkg", "gawk",
    "init-system-helpers", "install-info", "iproute2", "lsb-base", "mawk", "original-awk", "perl",
    "readline-common", "sysvinit-utils", "tar",
))  # fmt: skip
_UNUSED = (
    *(f"usr/share/{d}/" for d in ("doc", "man", "info", "locale", "lintian", "bug", "menu")),
    "usr/share/bash-completion/", "usr/lib/systemd/", "etc/init.d/", "var/cache/",
    "usr/lib/x86_64-linux-gnu/gconv/", "usr/lib/postgresql/15/lib/bitcode/",
)  # fmt: skip
_MERGED = ("bin", "sbin", "lib", "lib64")  # Debian's merged /usr

_WHOAMI = r"""#!/usr/bin/perl
# Stand-in for traefik/whoami: answers every request with where it arrived and what it said.
use strict; use warnings; use Socket qw(:all);
$SIG{TERM} = $SIG{INT} = sub { exit 0 }; $SIG{CHLD} = 'IGNORE'; $SIG{PIPE} = 'IGNORE';
my $port = $ENV{WHOAMI_PORT_NUMBER} || 80;
while (@ARGV) { my $a = shift @ARGV; $port = shift @ARGV if $a =~ /^--?port$/; }
my $server;
if (socket($server, AF_INET6, SOCK_STREAM, 0)) {
    setsockopt($server, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    setsockopt($server, SOL_SOCKET, SO_REUSEADDR, 1);
    bind($server, pack_sockaddr_in6($port, IN6ADDR_ANY)) or undef $server;
}
if (!$server) {
    socket($server, AF_INET, SOCK_STREAM, 0) or die "socket: $!";
    setsockopt($server, SOL_SOCKET, SO_REUSEADDR, 1);
    bind($server, pack_sockaddr_in($port, INADDR_ANY)) or die "bind: $!";
}
listen($server, 128) or die "listen: $!";
$| = 1; print "Starting up on port $port\n";
open(my $h, '<', '/proc/sys/kernel/hostname'); chomp(my $host = <$h>);
while (1) {
    my $peer = accept(my $client, $server) or next;
    my $pid = fork();
    if (!defined $pid || $pid) { close $client; next; }
    close $server; alarm 30;
    my $at = sub {
        my ($e, $ip, $p) = getnameinfo($_[0], NI_NUMERICHOST | NI_NUMERICSERV);
        $ip =~ s/^::ffff://; return ($ip, $p);
    };
    my ($ip, $p) = $at->($peer);
    my @lines; my $length = 0;
    while (my $line = <$client>) {
        $line =~ s/\r?\n$//; last if $line eq '';
        $length = $1 if $line =~ /^content-length:\s*(\d+)/i; push @lines, $line;
    }
    read($client, my $ignored, $length) if $length;
    my (%ips, $last);  # the pod's own addresses, as the kernel's routing table knows them
    open(my $trie, '<', '/proc/net/fib_trie');
    while (<$trie>) {
        $last = $1 if /\|-- ([0-9.]+)/;
        $ips{$last} = 1 if m{/32 host LOCAL} && $last;
    }
    my $request = shift(@lines) // '';
    my ($path) = $request =~ /^\S+ (\S+)/; $path //= '/';
    my $body = "Hostname: $host\n" . join('', map { "IP: $_\n" } sort keys %ips)
        . "RemoteAddr: " . ($ip =~ /:/ ? "[$ip]" : $ip) . ":$p\n$request\n"
        . join('', map { "$_\n" } @lines) . "\n";
    $body = "" if $path eq '/health';
    print $client "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: "
        . length($body) . "\r\nConnection: close\r\n\r\n$body";
    exit 0;
}
"""

_NGINX_PAGE = """<!DOCTYPE html>
<html><head><title>Welcome to nginx!</title></head>
<body><h1>Welcome to nginx!</h1><p>A stand-in built from Debian's package.</p></body></html>
"""
_NGINX_CONF = """user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    access_log /dev/stdout;
    server { listen 80; listen [::]:80; root /usr/share/nginx/html; }
}
"""
_BASE_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'ID=debian\nPRETTY_NAME="Sampan stand-in image from Debian packages"\n',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Packages (with what they need to run) and files; *without*: packages of layers below."""

    packages: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # path -> text; 0755 if it starts #!
    directories: tuple[str, ...] = ()
    applets: bool = False  # a link for each applet of busybox
    without: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()  # packages that are asked for and never loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianImage:
    tag: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    stop_signal: str = ""
    ports: tuple[int, ...] = ()


_BASE = Layer(
    packages=("busybox-static", "libc6"),
    files=_BASE_FILES,
    directories=("tmp", "root", "run", "proc", "sys", "dev", "var/log", "var/tmp"),
    applets=True,
)
_TOOLS = Layer(packages=("bash", "curl", "net-tools"), without=("libc6",))
_PERL = Layer(packages=("perl-base",), files={"usr/bin/whoami-server": _WHOAMI}, without=("libc6",))
_NGINX = Layer(
    packages=("nginx",),
    files={"usr/share/nginx/html/index.html": _NGINX_PAGE, "etc/nginx/nginx.conf": _NGINX_CONF},
    directories=("var/lib/nginx", "var/log/nginx"),
    without=("libc6",),
)
_REDIS = Layer(packages=("redis-server", "redis-tools"), directories=("data",), without=("libc6",))


# Compiling queries (llvm) is off, passwords and certificates are not used, one locale is enough.
_POSTGRES = Layer(
    packages=("postgresql-15", "postgresql-client-15", "tzdata"),
    files={
        "etc/passwd": _BASE_FILES["etc/passwd"]
        + "postgres:x:999:999::/var/lib/postgresql:/bin/sh\n",
        "etc/group": _BASE_FILES["etc/group"] + "postgres:x:999:\n",
    },
    directories=("var/lib/postgresql", "data"),
    without=("libc6",),
    unused=(
        "libllvm14", "libz3-4", "locales-all", "libc-l10n", "libjson-perl", "openssl",
        "postgresql-common", "postgresql-client-common", "ssl-cert", "ucf",
    ),
)  # fmt: skip


def _nginx(version: str) -> DebianImage:
    mark = Layer(files={"etc/sampan-stand-in": f"nginx:{version}\n"})
    return DebianImage(
        tag=f"nginx:{version}",
        layers=(_BASE, _NGINX, mark),
        cmd=("nginx", "-g", "daemon off;"),
        stop_signal="SIGQUIT",
        ports=(80,),
    )


STAND_INS = (
    DebianImage(
        tag="traefik/whoami:latest",
        layers=(_BASE, _PERL),
        entrypoint=("/usr/bin/whoami-server",),
        ports=(80,),
    ),
    DebianImage(tag="praqma/network-multitool:latest", layers=(_BASE, _TOOLS), cmd=("/bin/bash",)),
    _nginx("1.14.1"),
    _nginx("1.16.1"),
    DebianImage(
        tag="redis:7",
        layers=(_BASE, _REDIS),
        cmd=("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data"),
        ports=(6379,),
    ),
    DebianImage(tag="busybox:latest", layers=(_BASE,), cmd=("sh",)),
)


# Large, so in an archive of its own: archive("postgres", (POSTGRES,)).
POSTGRES = DebianImage(
    tag="postgres:15",
    layers=(_BASE, _POSTGRES),
    cmd=("/usr/lib/postgresql/15/bin/postgres", "-D", "/data"),
    stop_signal="SIGINT",
    ports=(5432,),
)


# Of many files, so in an archive of its own: archive("python", (PYTHON,)).
PYTHON = DebianImage(
    tag="python:3.11",
    layers=(
        _BASE,
        Layer(packages=("python3",), without=("libc6",), unused=("tzdata", "media-types")),
    ),
    cmd=("python3",),
)


def closure(packages: Iterable[str], *, unused: Iterable[str] = ()) -> list[str]:
    """*packages* and what they depend on at run time but for *unused*, sorted, by apt's own
    metadata."""
    packages = tuple(packages)
    if not packages:
        return []
    listing = subprocess.run(
        ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests",
         "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", *packages],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    graph: dict[str, list[str]] = {}
    current = ""
    for line in listing.splitlines():
        if line[:1].isalnum():
            current = line.strip()
            graph.setdefault(current, [])
        elif "Depends: " in line and not line.startswith(" |"):
            graph[current].append(line.split("Depends: ", 1)[1].strip().strip("<>"))
    found: set[str] = set()
    todo = list(packages)
    left_out = _INSTALL_TIME.union(unused)
    while todo:
        name = todo.pop()
        if name in found or name in left_out or name not in graph:
            continue
        found.add(name)
        todo += graph[name]
    return sorted(found)


def fetch(packages: Iterable[str], cache: Path) -> list[Path]:
    """The .deb file of each package, downloaded by apt where *cache* lacks it."""
    cache.mkdir(parents=True, exist_ok=True)
    packages = list(packages)
    missing = [p for p in packages if not any(cache.glob(f"{p}_*.deb"))]
    if missing:
        subprocess.run(
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *missing],
            cwd=cache, check=True,
        )  # fmt: skip
    return [sorted(cache.glob(f"{p}_*.deb"))[-1] for p in packages]


def _place(name: str) -> str:
    name = name.removeprefix("./").rstrip("/")
    top = name.split("/", 1)[0]
    return f"usr/{name}" if top in _MERGED else name


def _info(name: str, mode: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.linkname = mode, kind, link
    return info


def layer_tar(layer: Layer, cache: Path) -> bytes:
    """The layer as an uncompressed tar, the same bytes for the same packages."""
    entries: dict[str, tuple[tarfile.TarInfo, bytes | None]] = {}

    def add(info: tarfile.TarInfo, data: bytes | None = None) -> None:
        parent = os.path.dirname(info.name)
        if parent and parent not in entries:
            add(_info(parent, 0o755, tarfile.DIRTYPE))
        info.mtime, info.uname, info.gname = 0, "", ""
        if data is not None:
            info.size = len(data)
        entries[info.name] = (info, data)

    if layer.applets:
        for d in _MERGED:
            add(_info(d, 0o777, tarfile.SYMTYPE, f"usr/{d}"))
    below = set(closure(layer.without))
    wanted = closure(layer.packages, unused=layer.unused)
    for deb in fetch([p for p in wanted if p not in below], cache):
        data = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                name = _place(member.name)
                if name in ("", ".", "usr") or f"{name}/".startswith(_UNUSED):
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                member.name = name
                if member.islnk():
                    member.linkname = _place(member.linkname)
                add(member, content.read() if content else None)
    if layer.applets:
        applets = subprocess.run(
            ["busybox", "--list"], check=True, capture_output=True, text=True
        ).stdout.split()
        for applet in applets:
            if applet != "busybox":
                add(_info(f"usr/bin/{applet}", 0o777, tarfile.SYMTYPE, "busybox"))
    for d in layer.directories:
        add(_info(d, 0o1777 if d in ("tmp", "var/tmp") else 0o755, tarfile.DIRTYPE))
    for path, text in layer.files.items():
        add(_info(path, 0o755 if text.startswith("#!") else 0o644), text.encode())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(entries):
            info, content_bytes = entries[name]
            tar.addfile(info, io.BytesIO(content_bytes) if content_bytes is not None else None)
    return out.getvalue()


def write_archive(images: Iterable[DebianImage], out: Path, cache: Path) -> None:
    """*images* as one docker archive at *out*; equal layers are in it once."""
    manifest = []
    blobs: dict[str, bytes] = {}
    made: dict[int, str] = {}
    for image in images:
        digests = []
        for layer in image.layers:
            if id(layer) not in made:
                data = layer_tar(layer, cache)
                made[id(layer)] = hashlib.sha256(data).hexdigest()
                blobs[made[id(layer)] + ".tar"] = data
            digests.append(made[id(layer)])
        config = {
            "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": list(image.entrypoint) or None, "Cmd": list(image.cmd) or None,
                "Labels": {"io.sampan.stand-in": image.tag},
                "ExposedPorts": {f"{p}/tcp": {} for p in image.ports},
                **({"StopSignal": image.stop_signal} if image.stop_signal else {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in digests]},
        }  # fmt: skip
        encoded = json.dumps(config, sort_keys=True).encode()
        name = hashlib.sha256(encoded).hexdigest() + ".json"
        blobs[name] = encoded
        manifest.append(
            {"Config": name, "RepoTags": [image.tag], "Layers": [f"{d}.tar" for d in digests]}
        )
    blobs["manifest.json"] = json.dumps(manifest).encode()
    part = out.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        for name in sorted(blobs):
            info = _info(name, 0o644)
            info.size = len(blobs[name])
            tar.addfile(info, io.BytesIO(blobs[name]))
    part.replace(out)


def stand_ins(cache: Path | None = None) -> Path:
    """The archive of all stand-ins, built where the cache has none of this version."""
    return archive("stand-ins", STAND_INS, cache)


def archive(name: str, images: Iterable[DebianImage], cache: Path | None = None) -> Path:
    """An archive of *images*, built where the cache has none of that name and this version."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = cache or home / "sampan" / "demo"
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    out = cache / f"{name}-{version}.tar"
    if not out.exists():
        write_archive(images, out, cache)
    return out


if __name__ == "__main__":
    built = stand_ins()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_bytes(built.read_bytes())
    else:
        print(built)
