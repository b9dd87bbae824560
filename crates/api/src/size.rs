//! The sizes of a MicroVM (SPEC §3): the memory asked for names the row, the guest gets the peak.

const GIB: u64 = 1 << 30;

/// One row of the size table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeClass {
    /// `minimumMemoryInMiB`: the name of the row.
    pub memory_mib: u32,
    /// Memory the guest has, from its start.
    pub peak_memory_mib: u32,
    /// Processors the guest has.
    pub vcpus: u32,
    /// Size of the guest's writable disk.
    pub disk_bytes: u64,
}

const fn row(memory_mib: u32, vcpus: u32, disk_gib: u64) -> SizeClass {
    SizeClass { memory_mib, peak_memory_mib: memory_mib * 4, vcpus, disk_bytes: disk_gib * GIB }
}

/// What an image without `resources` gets.
pub const DEFAULT: SizeClass = row(2048, 4, 8);

/// Every size, smallest first.
pub const ALL: [SizeClass; 5] =
    [row(512, 1, 8), row(1024, 2, 8), DEFAULT, row(4096, 8, 16), row(8192, 16, 32)];

impl SizeClass {
    /// The row with that `minimumMemoryInMiB`.
    #[must_use]
    pub fn for_memory(memory_mib: i64) -> Option<Self> {
        ALL.into_iter().find(|size| i64::from(size.memory_mib) == memory_mib)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_documentation() {
        let rows: Vec<_> =
            ALL.iter().map(|s| (s.memory_mib, s.peak_memory_mib, s.vcpus, s.disk_bytes / GIB)).collect();
        assert_eq!(
            rows,
            [
                (512, 2048, 1, 8),
                (1024, 4096, 2, 8),
                (2048, 8192, 4, 8),
                (4096, 16384, 8, 16),
                (8192, 32768, 16, 32)
            ]
        );
        assert_eq!(SizeClass::for_memory(2048), Some(DEFAULT));
        assert_eq!(SizeClass::for_memory(2049), None);
    }
}
