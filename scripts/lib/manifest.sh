# manifest: what was installed, as `name=value` lines, for `rekindle doctor` and for bug reports.

write_manifest() {
    local name
    {
        printf 'kernel=%s\n' "$(<"$assets/kernel/release")"
        printf 'qemu=%s\n' "$(dpkg-query -W -f '${Version}' qemu-system-x86)"
        for name in "$assets"/.made/*; do
            printf 'recipe.%s=%s\n' "${name##*/}" "$(<"$name")"
        done
        for name in tools.erofs bases.erofs; do
            printf 'bytes.%s=%s\n' "$name" "$(stat -c %s "$assets/$name")"
        done
    } >"$assets/manifest.tmp"
    mv "$assets/manifest.tmp" "$assets/manifest"
}
