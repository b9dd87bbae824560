//! How programs call the kernel on this architecture: another is a module like this.

use std::str::FromStr;

use super::program::Calls;

/// Those of 32-bit programs have other numbers.
pub(super) const CALLS: [Calls; 2] = [
    Calls { architecture: 0xc000_003e, number: of_64_bits },
    Calls { architecture: 0x4000_0003, number: of_32_bits },
];

fn of_64_bits(name: &str) -> Option<u32> {
    syscalls::x86_64::Sysno::from_str(name).ok()?.id().try_into().ok()
}

fn of_32_bits(name: &str) -> Option<u32> {
    syscalls::x86::Sysno::from_str(name).ok()?.id().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::program::tests::run;
    use super::super::program::{ALLOW, DENY_KNOWING, REFUSE};
    use super::*;

    #[test]
    fn numbers_are_those_of_the_callers_kind() {
        let [long, short] = CALLS;
        assert_eq!(run(short.architecture, of_32_bits("socketcall").unwrap(), 0), ALLOW);
        // The number that `access` has among the others.
        assert_eq!(run(short.architecture, of_32_bits("mount").unwrap(), 0), REFUSE);
        assert_eq!(run(long.architecture, of_32_bits("mount").unwrap(), 0), ALLOW);
        assert_eq!(run(long.architecture, 0x4000_0000, 0), DENY_KNOWING, "x32");
    }
}
