"""Makes what the builders work on: trees, files, images. All from a seed, so that two runs of the script use the same bytes.

A run that is to be cold gets data of a seed of its own: no builder, and no cache of one, has seen a byte of it before.
"""
import hashlib, io, json, os, random, shutil, subprocess, tarfile, time
from servers import Failed

MIB = 1 << 20


def words(seed, size):
    """Returns `size` bytes of lines of random words."""
    r = random.Random(seed)
    known = ["".join(r.choices("etaoinshrdlucmfwypvbgkjqxz", range(26, 0, -1), k=r.randint(2, 11))) for _ in range(4096)]
    parts, have = [], 0
    while have < size:
        line = " ".join(r.choices(known, k=12)) + "\n"
        parts.append(line)
        have += len(line)
    return "".join(parts).encode()[:size]


def files(seed, count, size):
    """Yields `count` texts of `size` bytes, no two alike."""
    pool = words(seed, 4 * MIB + size)
    r = random.Random(f"{seed} offsets")
    for n in range(count):
        head = b"%s %d\n" % (str(seed).encode(), n)
        at = r.randrange(4 * MIB)
        yield head + pool[at:at + size - len(head)]


def tree(path, seed, count, size=10_000, folders=200):
    """Writes `count` files of `size` bytes into `folders` directories."""
    folders = max(1, min(folders, count // 10))
    for n in range(folders):
        os.makedirs(f"{path}/dir{n:03}")
    for n, data in enumerate(files(seed, count, size)):
        with open(f"{path}/dir{n % folders:03}/file{n:05}.txt", "wb") as f:
            f.write(data)


def edit(path, n):
    """Changes one file's bytes, not its size."""
    with open(path, "r+b") as f:
        f.write(b"%08d" % n)


def half_random_file(path, seed, mebibytes):
    """Writes blocks of 1 MiB random bytes and 3 MiB random hexadecimal words, which gzip to about two thirds."""
    r = random.Random(seed)
    with open(path, "wb") as f:
        while mebibytes > 0:
            block = r.randbytes(MIB) + r.randbytes(4 * MIB // 3).hex(" ", 4).encode()[:3 * MIB]
            f.write(block[:mebibytes * MIB])
            mebibytes -= 4


def busybox_layer(path):
    """Writes a tar of a root file system with busybox and all its names."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise Failed("busybox is missing: apt-get install busybox-static")
    names = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "dev", "etc", "proc", "root", "sys", "usr", "var"):
            add(tar, name, tarfile.DIRTYPE)
        add(tar, "tmp", tarfile.DIRTYPE, 0o1777)
        add(tar, "etc/passwd", mode=0o644, data=b"root:x:0:0:root:/root:/bin/sh\n")
        add(tar, "etc/group", mode=0o644, data=b"root:x:0:\n")
        with open(busybox, "rb") as f:
            add(tar, "bin/busybox", data=f.read())
        for name in sorted(set(names) - {"busybox"}):
            add(tar, f"bin/{name}", tarfile.SYMTYPE, link="busybox")


def tree_layer(path, seed, folder, count, size):
    """Writes a tar of `count` files below `folder`."""
    with tarfile.open(path, "w") as tar:
        add(tar, folder, tarfile.DIRTYPE)
        for n, data in enumerate(files(seed, count, size)):
            if n % 100 == 0:
                add(tar, f"{folder}/d{n // 100}", tarfile.DIRTYPE)
            add(tar, f"{folder}/d{n // 100}/f{n}", mode=0o644, data=data)


def add(tar, name, kind=tarfile.REGTYPE, mode=0o755, link="", data=b""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data)
    tar.addfile(info, io.BytesIO(data))


def layout(path, layers):
    """Makes an OCI layout of an image with these tars as layers, which are moved into it."""
    blobs = f"{path}/blobs/sha256"
    os.makedirs(blobs)
    descriptors = []
    for layer in layers:
        digest = file_digest(layer)
        descriptors.append({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{digest}", "size": os.path.getsize(layer)})
        os.rename(layer, f"{blobs}/{digest}")

    def blob(value, kind):
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{digest}", "wb") as f:
            f.write(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": f"sha256:{digest}", "size": len(data)}

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = blob({"architecture": machine, "os": "linux", "created": "2000-01-01T00:00:00Z", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
                   "rootfs": {"type": "layers", "diff_ids": [d["digest"] for d in descriptors]},
                   "history": [{"created_by": "data"} for _ in descriptors]}, "config")  # buildah insists on one a layer
    manifest = blob({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": descriptors}, "manifest")
    with open(f"{path}/index.json", "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, f)
    with open(f"{path}/oci-layout", "w") as f:
        json.dump({"imageLayoutVersion": "1.0.0"}, f)


def file_digest(path):
    hasher = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(MIB):
            hasher.update(data)
    return hasher.hexdigest()


def send(skopeo, folder, reference, environment):
    """Sends a layout to the loopback registry, gzipped, and returns the digest that it has there."""
    digest_file = f"{folder}.digest"
    argv = [skopeo, "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--digestfile", digest_file, f"oci:{folder}", f"docker://{reference}"]
    r = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode:
        raise Failed(f"skopeo could not send an image:\n{r.stdout[-3000:]}")
    with open(digest_file) as f:
        return f.read().strip()


def loop(count):
    """Returns a shell loop that keeps a processor busy."""
    return f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); done"


def calibrate(seconds):
    """Returns how many turns of `loop` take so long in busybox's shell here."""
    probe = 50_000
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(["busybox", "sh", "-c", loop(probe)], check=True)
        best = min(best, time.perf_counter() - start)
    return max(1, int(probe * seconds / best))
