# tools.erofs: the read-only root of a build VM, with the image builder in it.

TOOLS_PACKAGES=buildah,crun,ca-certificates,netavark,iptables,e2fsprogs,erofs-utils,unzip

# Where the agent mounts things in a build VM; the root is read-only, so the folders must be there beforehand.
TOOLS_MOUNT_POINTS=(bases scratch artifact output)

make_tools() {
    make_tools_tree
    pack_erofs "$work/tools" "$1"
}

# Kept in the work folder for the rest of this run: the base images are built with it.
make_tools_tree() {
    local tree=$work/tools
    [[ ! -e $tree ]] || return 0
    bootstrap "$tree" "$TOOLS_PACKAGES"
    (cd "$tree" && mkdir -p "${TOOLS_MOUNT_POINTS[@]}")
    redirect_writes "$tree"
    configure_containers "$tree/etc/containers"
    printf 'nameserver 169.254.53.53\n' >"$tree/etc/resolv.conf"
    check_tool "$tree" buildah "$BUILDAH_VERSION"
    check_tool "$tree" crun "$CRUN_VERSION"
}

# bootstrap TARGET PACKAGES [OPTION...]: a minimal Debian of the guests' release without documentation, trusting what the
# host trusts, and keeping neither the host's name nor its name servers, which mmdebstrap copies in.
bootstrap() {
    local target=$1 packages=$2 archive security
    shift 2
    archive=$(archive_uri "$HOST_RELEASE")
    security=$(archive_uri "$HOST_RELEASE-security")
    mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook="$(trust_hook)" \
        --customize-hook='echo localhost >"$1/etc/hostname" && : >"$1/etc/resolv.conf"' \
        "$@" "$GUEST_RELEASE" "$target" \
        "deb $archive $GUEST_RELEASE main" "deb $archive $GUEST_RELEASE-updates main" \
        ${security:+"deb $security $GUEST_RELEASE-security main"}
}

# mmdebstrap's shell expands $1, the new root.
# shellcheck disable=SC2016
trust_hook() {
    local certificate
    for certificate in $(extra_certificates); do
        printf 'cp %q "$1/usr/local/share/ca-certificates/" && ' "$certificate"
    done
    printf 'chroot "$1" update-ca-certificates'
}

# buildah writes to two places below the read-only root: its temporary files go to the scratch disk, and the cache of
# short names, without whose lock it resolves none, to memory.
redirect_writes() {
    rm -rf "$1/var/tmp" "$1/var/cache/containers"
    ln -s ../scratch "$1/var/tmp"
    ln -s ../../run "$1/var/cache/containers"
}

configure_containers() {
    cat >"$1/storage.conf" <<'END'
[storage]
driver = "overlay"
graphroot = "/scratch/containers/storage"
runroot = "/run/containers/storage"

[storage.options]
additionalimagestores = ["/bases"]
END
    # The catalogue's short names lead to its own images; any other short name means Docker Hub, as everywhere.
    cat >"$1/registries.conf.d/rekindle.conf" <<'END'
unqualified-search-registries = ["docker.io"]
short-name-mode = "permissive"

[aliases]
"rekindle/debian" = "localhost/rekindle/debian"
"rekindle/python" = "localhost/rekindle/python"
END
}

check_tool() {
    local found
    found=$(dpkg-query --admindir "$1/var/lib/dpkg" -W -f '${Version}' "$2")
    [[ $found == "$3"* ]] || warn "build tools have $2 $found, tested was $3"
}

# Uncompressed: a build VM may be emulated, where inflating costs more than reading. Files keep their times, because
# Python trusts a compiled module only while its source has the time noted in it.
pack_erofs() {
    mkfs.erofs --quiet "$2" "$1"
}
