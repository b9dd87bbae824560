//! The host's processor, as `/proc/cpuinfo` tells of it.

/// Whether it has Intel VT-x or AMD-V, and shows it.
pub(crate) fn has_virtualization(cpuinfo: &str) -> bool {
    has(cpuinfo, "vmx") || has(cpuinfo, "svm")
}

/// Whether it has a feature, by the kernel's name for it.
pub(crate) fn has(cpuinfo: &str, feature: &str) -> bool {
    field(cpuinfo, "flags").is_some_and(|flags| flags.split_ascii_whitespace().any(|flag| flag == feature))
}

/// Its maker.
pub(crate) fn vendor(cpuinfo: &str) -> Option<&str> {
    field(cpuinfo, "vendor_id")
}

/// Of the first processor.
fn field<'a>(cpuinfo: &'a str, key: &str) -> Option<&'a str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        assert!(has_virtualization("processor\t: 0\nflags\t\t: fpu svm sse\n"));
        assert!(has_virtualization("flags : vmx\n"));
        assert!(!has_virtualization("flags : fpu svm_lock\nvmx flags : svm\nmodel name : vmx\n"));
        assert!(!has_virtualization(""));
    }

    #[test]
    fn the_vendor_is_that_of_the_first_processor() {
        assert_eq!(vendor("processor\t: 0\nvendor_id\t: GenuineIntel\nflags : fpu\n"), Some("GenuineIntel"));
        assert_eq!(vendor("processor : 0\n"), None);
    }
}
