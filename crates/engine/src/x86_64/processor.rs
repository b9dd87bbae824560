//! The host's processor, as `/proc/cpuinfo` tells of it.

/// Whether it has Intel VT-x or AMD-V, and shows it.
pub(crate) fn has_virtualization(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .flat_map(|(_, flags)| flags.split_ascii_whitespace());
    flags.any(|flag| flag == "vmx" || flag == "svm")
}

/// Its maker.
pub(crate) fn vendor(cpuinfo: &str) -> Option<&str> {
    field(cpuinfo, "vendor_id")
}

/// What it is, as closely as its maker numbers it.
pub(crate) fn model(cpuinfo: &str) -> String {
    let part = |key| field(cpuinfo, key).unwrap_or("?");
    format!("family {} model {} stepping {}", part("cpu family"), part("model"), part("stepping"))
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

    #[test]
    fn a_model_is_its_three_numbers() {
        let cpuinfo = "cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: EPYC\nstepping\t: 1\n";
        assert_eq!(model(cpuinfo), "family 25 model 1 stepping 1");
        assert_eq!(model(""), "family ? model ? stepping ?");
    }
}
