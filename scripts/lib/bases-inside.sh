# Runs inside the build tools' root: fills the store at /bases with the base images.
set -euo pipefail

# The store being filled is the main one here; in a build VM it is an additional, read-only one.
cat >/run/storage.conf <<'END'
[storage]
driver = "overlay"
graphroot = "/bases"
runroot = "/run/containers/storage"
END
export CONTAINERS_STORAGE_CONF=/run/storage.conf

# With its history: without one, buildah takes no step that lies over it for done.
commit() {
    buildah commit --quiet --rm "$1" "localhost/rekindle/$2"
}

make_debian() {
    local container
    container=$(buildah from scratch)
    buildah add --quiet "$container" /tmp/debian.tar /
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd '["bash"]' "$container"
    commit "$container" "debian:$DEBIAN_TAG"
}

make_python() {
    local container root
    container=$(buildah from --pull-never "localhost/rekindle/debian:$DEBIAN_TAG")
    root=$(buildah mount "$container")
    install_python "$root"
    buildah umount "$container"
    buildah config --env LANG=C.UTF-8 --cmd '["python3"]' "$container"
    commit "$container" "python:$PYTHON_TAG"
}

# By chroot and not `buildah run`, which raises resource limits and so needs more rights than a container may have.
# The mounts are in a namespace that ends with this script; they are undone here only to keep them out of the image.
install_python() {
    local root=$1 mount
    cp "$root/etc/resolv.conf" /run/resolv.conf
    cat /etc/resolv.conf >"$root/etc/resolv.conf"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    DEBIAN_FRONTEND=noninteractive chroot "$root" sh -euc '
        apt-get update --quiet
        apt-get install --yes --quiet --no-install-recommends python3 python3-pip python3-venv
        ln -s python3 /usr/bin/python
        # The image belongs to the application alone: pip may install into it.
        rm /usr/lib/python3*/EXTERNALLY-MANAGED
        apt-get clean
        rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/ldconfig/aux-cache'
    umount --recursive --lazy "$root/dev"
    umount "$root/proc"
    cat /run/resolv.conf >"$root/etc/resolv.conf"
}

make_debian
make_python
buildah images
