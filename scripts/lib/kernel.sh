# The guest kernel and the modules that the agent loads, taken from a Debian package that is unpacked, never installed.

GUEST_MODULES=(
    virtio virtio_ring virtio_mmio virtio_blk failover net_failover virtio_net virtio_console vmw_vsock_virtio_transport
    virtio_balloon veth erofs overlay fuse inet_diag tcp_diag udp_diag
)

make_kernel() {
    local out=$1 tree=$work/kernel-package release
    mkdir -p "$out/modules" "$tree"
    fetch_kernel "$tree"
    release=$(ls "$tree/lib/modules")
    depmod --basedir "$tree" "$release"
    cp "$tree/boot/vmlinuz-$release" "$out/vmlinuz"
    printf '%s\n' "$release" >"$out/release"
    copy_modules "$tree" "$release" "$out/modules"
    rm -rf "$tree"
}

fetch_kernel() {
    local deb
    cd "$work"
    if ! apt-get download --quiet "$KERNEL_PACKAGE=$KERNEL_VERSION"; then
        refresh_apt
        apt-get download --quiet "$KERNEL_PACKAGE=$KERNEL_VERSION" || fetch_nearest_kernel
    fi
    deb=$(ls ./linux-image-*.deb)
    dpkg-deb --extract "$deb" "$1"
    rm "$deb"
}

fetch_nearest_kernel() {
    local name
    name=$(apt-cache pkgnames linux-image-6.1.0- | grep -xE "$KERNEL_SERIES" | sort -V | tail -n 1)
    [[ -n $name ]] || die "no package like $KERNEL_SERIES is served: set KERNEL_PACKAGE in scripts/versions.env"
    warn "$KERNEL_PACKAGE $KERNEL_VERSION is not served, taking $name"
    apt-get download --quiet "$name"
}

# Copies the modules and lists them in load order, dependencies first. What is built into the kernel needs no file.
copy_modules() {
    local tree=$1 release=$2 out=$3 module
    for module in "${GUEST_MODULES[@]}"; do
        modprobe --dirname "$tree" --set-version "$release" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$work/modules"
    xargs --arg-file="$work/modules" cp --target-directory="$out"
    sed 's|.*/||' "$work/modules" >"$out/order"
    rm "$work/modules"
}
