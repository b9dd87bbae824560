# scratch-NNg.ext4: empty file systems that a MicroVM's private disk starts as. Sparse, so a size costs nothing.

SCRATCH_SIZES_GIB=(8 16 32)

# No journal: the host snapshots a disk together with the memory that caches it, and a scratch disk does not outlive its
# VM. The file is all zeros already, so the inode tables are marked as initialised: neither mkfs nor a VM's kernel in the
# background writes them.
make_scratch() {
    local gib=$1 out=$2
    truncate --size "${gib}G" "$out"
    mkfs.ext4 -q -F -m 0 -L scratch -O '^has_journal' \
        -E assume_storage_prezeroed=1,nodiscard,root_owner=0:0 "$out"
}
