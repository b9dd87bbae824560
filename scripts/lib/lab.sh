# What the KVM lab is made of: the disk of a host as set-up prepares one, its kernel, and the assets. The lab runs the
# programs that were built on this machine, so it is of this machine's release.

# Beside what set-up and `scripts/clients` install: what their tests look at processes with.
LAB_PACKAGES=(procps libcap2-bin openssl)
LAB_DISK_SIZE=32G

# The kernel is unpacked, not installed: nvme and ext4, which are all that is needed to reach the disk, are built in, so
# that it needs no initial RAM disk and none of the programs that make one.
make_lab_host() {
    local out=$1 tree=$work/lab-tree archive security packages
    archive=$(archive_uri "$HOST_RELEASE")
    security=$(archive_uri "$HOST_RELEASE-security")
    packages=("${HOST_PACKAGES[@]}" "${QEMU_PACKAGES[@]}" "${CLIENT_PACKAGES[@]}" "${LAB_PACKAGES[@]}")
    mkdir -p "$out"
    # mmdebstrap's shell expands $1, the new root.
    # shellcheck disable=SC2016
    mmdebstrap --verbose --mode=root --variant=minbase --include="$(IFS=,; printf '%s' "${packages[*]}")" \
        --setup-hook='mkdir -p "$1/etc/apt/preferences.d"' \
        --setup-hook="printf '%s\n' $(printf '%q ' "${LAB_PINS[@]}") >\"\$1/etc/apt/preferences.d/rekindle\"" \
        --customize-hook="$(trust_hook)" \
        --customize-hook='chroot "$1" sh -euc '"'$LAB_KERNEL'" \
        --customize-hook='sed -E -i "s/^(hosts:[[:space:]]+files).*/\1 myhostname dns/" "$1/etc/nsswitch.conf"' \
        --customize-hook='mkdir "$1/lab" && echo lab >"$1/etc/hostname" && echo nameserver 10.0.2.3 >"$1/etc/resolv.conf"' \
        "$HOST_RELEASE" "$tree" \
        "deb $archive $HOST_RELEASE main" "deb $archive $HOST_RELEASE-updates main" \
        "deb $archive $HOST_RELEASE-backports main" \
        ${security:+"deb $security $HOST_RELEASE-security main"}
    mv "$tree"/boot/vmlinuz-* "$out/vmlinuz"
    truncate --size "$LAB_DISK_SIZE" "$out/disk"
    mkfs.ext4 -q -F -m 0 -L lab -O '^has_journal' -E assume_storage_prezeroed=1,nodiscard -d "$tree" "$out/disk"
    rm -rf "$tree"
}

LAB_PINS=(
    'Package: qemu-* seabios ipxe-qemu linux-image-*'
    "Pin: release n=$HOST_RELEASE-backports"
    'Pin-Priority: 900'
)

LAB_KERNEL='
    cd /tmp
    apt-get download --quiet "$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: //p" | head -n 1)"
    dpkg-deb --fsys-tarfile ./linux-image-*.deb | tar --extract --keep-directory-symlink --directory /
    rm ./linux-image-*.deb
    depmod "$(ls /lib/modules)"
'

# Without the empty disks, which are large and quickly made: the lab makes its own.
make_lab_assets() {
    mkfs.erofs --quiet --exclude-regex='^(scratch-.*|\.work|\.logs)$' "$3" "$1"
}

assets_sum() { cat "$1/manifest" "$1/clients/.made" | sha256sum | cut -d' ' -f1; }

# What the lab runs: the programs that `make build` made, without what debuggers want, what tests read, and whatever is
# in target/lab.
make_lab_checkout() {
    local program tree=$1/checkout$checkout
    mkdir -p "$tree/target/release" "$tree/$agent_dir" "$tree/crates/api"
    cp -r "$checkout"/{scripts,examples,tests} "$tree"
    cp -r "$checkout/crates/api/models" "$tree/crates/api"
    for program in target/release/rekindle target/release/rekindle-agent "$agent_dir/rekindle-agent"; do
        strip --strip-debug -o "$tree/$program" "$checkout/$program"
    done
    [[ ! -d $checkout/target/lab ]] || cp -r "$checkout/target/lab" "$tree/target"
}
