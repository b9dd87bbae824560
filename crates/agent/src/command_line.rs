//! What the host says of the machine on the kernel's command line, where its devices cannot say it themselves.

use crate::error::{Error, trying};

/// The port of the socket device at which the host connects; without it the host comes over a virtio port.
pub(crate) const VSOCK: &str = "rekindle.vsock";
/// The names of the disks, in the order of the devices; without it they are the disks' serial numbers.
pub(crate) const DISKS: &str = "rekindle.disks";

/// The value of a parameter.
pub(crate) fn value(name: &str) -> Result<Option<String>, Error> {
    let line =
        std::fs::read_to_string("/proc/cmdline").map_err(trying("reading the kernel's command line"))?;
    Ok(find(&line, name).map(str::to_owned))
}

fn find<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_a_whole_word() {
        let line = "console=ttyS0 x.disks=no disks=code,scratch disks.more=1 quiet\n";
        assert_eq!(find(line, "disks"), Some("code,scratch"));
        assert_eq!(find(line, "quiet"), None);
        assert_eq!(find(line, "vsock"), None);
    }
}
