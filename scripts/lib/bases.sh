# bases.erofs: the base-image catalogue, a containers/storage store that build VMs mount as an additional image store.

# What builds save by in images: disks that are thrown away need not be synced, and nobody is there to be asked.
# shellcheck disable=SC2016 # mmdebstrap's shell expands $1, the new root
IMAGE_OPTIONS=(
    --dpkgopt=force-unsafe-io
    --customize-hook='echo "debconf debconf/frontend select Noninteractive" | chroot "$1" debconf-set-selections'
    --customize-hook='printf "%s\n" "$APT_SETTINGS" >"$1/etc/apt/apt.conf.d/90image"'
)

# What apt keeps for its next run is not wanted in a layer: packages, and its own index, once they are installed; nor are
# descriptions in other words. Indexes come in gzip, which an emulated processor unpacks in a fraction of the time.
export APT_SETTINGS='Acquire::Languages "none";
Acquire::CompressionTypes::Order { "gz"; };
APT::Keep-Downloaded-Packages "false";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };'

make_bases() {
    local store=$work/bases-store
    make_tools_tree
    mkdir -p "$store"
    bootstrap "$work/debian.tar" ca-certificates "${IMAGE_OPTIONS[@]}"
    fill_store "$store"
    rm "$work/debian.tar"
    pack_erofs "$store" "$1"
    rm -rf "$store"
}

# Runs buildah in the build tools' root, in mount and pid namespaces of its own, so that nothing stays mounted and no
# container tool is needed on the host.
fill_store() {
    local root=$work/tools
    unshare --mount --pid --fork --kill-child bash -euc '
        root=$1 store=$2 archive=$3 script=$4
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/run"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$store" "$root/bases"
        mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
        mount --bind /etc/hosts "$root/etc/hosts"
        touch "$root/tmp/debian.tar" "$root/tmp/script"
        mount --bind "$archive" "$root/tmp/debian.tar"
        mount --bind "$script" "$root/tmp/script"
        exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
            DEBIAN_TAG="$5" PYTHON_TAG="$6" bash /tmp/script
    ' fill-store "$root" "$1" "$work/debian.tar" "$here/lib/bases-inside.sh" "$DEBIAN_TAG" "$PYTHON_TAG"
}
