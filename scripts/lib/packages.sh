# What the host itself needs, from Debian and its backports.

HOST_PACKAGES=(nftables iproute2 mmdebstrap erofs-utils e2fsprogs libnss-myhostname kmod)
# The VMM and its tool for disk images: both of one version, from backports.
QEMU_PACKAGES=(qemu-system-x86 qemu-utils)
# What the tests use beside the AWS clients: among them an ACME authority to have certificates issued by (pebble).
CLIENT_PACKAGES=(python3-venv curl ca-certificates pebble)

install_host_packages() {
    require_debian
    local missing
    mapfile -t missing < <(missing_packages "${HOST_PACKAGES[@]}" "${QEMU_PACKAGES[@]}")
    if [[ ${#missing[@]} -gt 0 ]]; then
        add_backports
        refresh_apt
        install_missing "${missing[@]}"
    fi
    check_qemu
    resolve_localhost_names
}

require_debian() {
    local release
    release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-unknown}")
    [[ $release == "$HOST_RELEASE" ]] || die "needs Debian $HOST_RELEASE, this host is $release"
}

missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || printf '%s\n' "$name"
    done
}

add_backports() {
    local entry=/etc/apt/sources.list.d/rekindle.sources archive
    [[ -z $(archive_uri "$HOST_RELEASE-backports") ]] || return 0
    archive=$(archive_uri "$HOST_RELEASE")
    [[ -n $archive ]] || die "apt knows no archive for $HOST_RELEASE: check /etc/apt/sources.list.d"
    cat >"$entry.tmp" <<END
Types: deb
URIs: $archive
Suites: $HOST_RELEASE-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
    mv "$entry.tmp" "$entry"
}

refresh_apt() { apt-get update --quiet --error-on=any; }

install_missing() {
    local name version others=() qemu=()
    version=$(available_qemu)
    for name in "$@"; do
        case $name in
            qemu-*) qemu+=("$name=$version") ;;
            *) others+=("$name") ;;
        esac
    done
    [[ ${#others[@]} -eq 0 ]] || apt_install "${others[@]}"
    [[ ${#qemu[@]} -eq 0 ]] || apt_install --target-release "$HOST_RELEASE-backports" "${qemu[@]}"
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "$@"
}

available_qemu() {
    local versions
    versions=$(apt-cache madison qemu-system-x86 | awk '{print $3}')
    if grep -qxF "$QEMU_VERSION" <<<"$versions"; then
        printf '%s' "$QEMU_VERSION"
    else
        awk -v series="$QEMU_SERIES" 'index($0, series) == 1' <<<"$versions" | sort -V | tail -n 1
    fi
}

check_qemu() {
    local found
    found=$(dpkg-query -W -f '${Version}' qemu-system-x86)
    case $found in
        "$QEMU_VERSION") ;;
        "$QEMU_SERIES"*) warn "QEMU $found is installed, tested was $QEMU_VERSION" ;;
        *) die "QEMU $found is installed; the snapshot format needs ${QEMU_SERIES#*:}x: remove it and run set-up again" ;;
    esac
}

# Endpoints are names under *.localhost; nss-myhostname answers for them once the hosts line names it.
resolve_localhost_names() {
    local conf=/etc/nsswitch.conf
    if ! grep -Eq '^hosts:.*\bmyhostname\b' "$conf"; then
        sed -E 's/^(hosts:[[:space:]]+files)/\1 myhostname/' "$conf" >"$conf.rekindle"
        mv "$conf.rekindle" "$conf"
    fi
    getent hosts any.name.localhost || die "*.localhost does not resolve: add myhostname to the hosts line of $conf"
}
