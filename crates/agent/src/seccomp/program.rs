//! The profile as a program of the kernel's filter machine (classic BPF).

use super::arch::CALLS;
use super::profile::{ALLOWED, CONDITIONAL, Condition, Rule, UNKNOWN};

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const NOT_LESS: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const ALWAYS: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

pub(super) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
pub(super) const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
pub(super) const DENY_KNOWING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Where `struct seccomp_data` has the call's number, its architecture and its arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// One of the ways in which programs can call the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    /// As the kernel tells it (`AUDIT_ARCH_*`).
    pub(super) architecture: u32,
    /// The number of a call by its name, where there is one.
    pub(super) number: Numbers,
}

type Numbers = fn(&str) -> Option<u32>;

pub(super) fn assemble() -> Vec<Instruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for calls in CALLS {
        let section = section(calls.number);
        program.extend([when(EQUAL, calls.architecture, 1, 0), go(section.len())]);
        program.extend(section);
    }
    program.push(done(libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// Decides; what follows it is not reached.
fn section(numbers: Numbers) -> Vec<Instruction> {
    let mut allowed: Vec<u32> = ALLOWED.split_whitespace().filter_map(numbers).collect();
    allowed.sort_unstable();
    // What is newer than the profile is none of its business: programs are to find that out as on an older kernel.
    let newest = allowed.last().copied().unwrap_or_default();
    let mut section = vec![load(NUMBER), when(GREATER, newest, 0, 1), done(DENY_KNOWING)];
    if let Some(number) = numbers(UNKNOWN) {
        section.extend([when(EQUAL, number, 0, 1), done(DENY_KNOWING)]);
    }
    for rule in CONDITIONAL {
        if let Some(number) = numbers(rule.name) {
            let check = check(&rule);
            section.extend([when(EQUAL, number, 1, 0), go(check.len())]);
            section.extend(check);
        }
    }
    for (first, last) in ranges(&allowed) {
        section.extend([when(NOT_LESS, first, 0, 2), when(GREATER, last, 1, 0), done(ALLOW)]);
    }
    section.push(done(REFUSE));
    section
}

/// Decides; what follows it is not reached.
fn check(rule: &Rule) -> Vec<Instruction> {
    let low = ARGUMENTS + 8 * rule.argument;
    let (upper_matters, values, then, otherwise) = match rule.allows {
        Condition::NoneOf(bits) => {
            let bits = Instruction { code: AND, if_true: 0, if_false: 0, value: bits };
            return vec![load(low), bits, when(EQUAL, 0, 0, 1), done(ALLOW), done(REFUSE)];
        }
        Condition::Is(values) => (REFUSE, values, ALLOW, REFUSE),
        Condition::IsNot(values) => (ALLOW, values, REFUSE, ALLOW),
    };
    let mut check = vec![load(low + 4), when(EQUAL, 0, 1, 0), done(upper_matters), load(low)];
    for value in values {
        check.extend([when(EQUAL, *value, 0, 1), done(then)]);
    }
    check.push(done(otherwise));
    check
}

/// Sorted numbers, as the first and the last of those that follow each other.
fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    ranges
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, if_true: 0, if_false: 0, value: offset }
}

fn when(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, value }
}

fn go(over: usize) -> Instruction {
    Instruction { code: ALWAYS, if_true: 0, if_false: 0, value: over as u32 }
}

fn done(result: u32) -> Instruction {
    Instruction { code: RETURN, if_true: 0, if_false: 0, value: result }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the kernel's machine makes of a call.
    pub(in crate::seccomp) fn run(architecture: u32, number: u32, argument: u64) -> u32 {
        let program = assemble();
        let (mut at, mut value) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD => {
                    value = match step.value {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        ARGUMENTS => argument as u32,
                        20 => (argument >> 32) as u32,
                        other => panic!("loads {other}"),
                    }
                }
                AND => value &= step.value,
                ALWAYS => at += step.value as usize,
                RETURN => return step.value,
                code => {
                    let is = match code {
                        EQUAL => value == step.value,
                        GREATER => value > step.value,
                        NOT_LESS => value >= step.value,
                        other => panic!("no instruction: {other}"),
                    };
                    at += usize::from(if is { step.if_true } else { step.if_false });
                }
            }
        }
    }

    fn call(name: &str, argument: u64) -> [u32; CALLS.len()] {
        CALLS.map(|calls| run(calls.architecture, (calls.number)(name).unwrap(), argument))
    }

    #[test]
    fn what_docker_refuses_is_refused_of_programs_of_either_kind() {
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "add_key",
            "userfaultfd",
            "io_uring_setup",
            "reboot",
        ] {
            assert_eq!(call(name, 0), [REFUSE; CALLS.len()], "{name}");
        }
        for name in ["read", "execve", "ptrace", "chroot", "exit_group", "futex", "mknod", "personality"] {
            assert_eq!(call(name, 0), [ALLOW; CALLS.len()], "{name}");
        }
    }

    #[test]
    fn arguments_decide_with_all_their_bits() {
        let new_user = libc::CLONE_NEWUSER as u64;
        assert_eq!(call("clone", new_user | 17), [REFUSE; CALLS.len()]);
        assert_eq!(call("clone", 17), [ALLOW; CALLS.len()]);
        for family in [38, 40] {
            assert_eq!(call("socket", family), [REFUSE; CALLS.len()]);
            assert_eq!(call("socket", family | 1 << 32), [ALLOW; CALLS.len()], "which is no family at all");
        }
        assert_eq!(call("socket", 39), [ALLOW; CALLS.len()]);
        assert_eq!(call("personality", 0xffff_ffff), [ALLOW; CALLS.len()]);
        assert_eq!(call("personality", 0x1_0000_0008)[0], REFUSE);
        assert_eq!(call("personality", 0x4_0000), [REFUSE; CALLS.len()], "no randomisation");
    }

    #[test]
    fn what_the_profile_does_not_know_is_not_there() {
        assert_eq!(call("clone3", 0), [DENY_KNOWING; CALLS.len()]);
        assert_eq!(run(CALLS[0].architecture, 5000, 0), DENY_KNOWING);
        assert_eq!(run(0, 0, 0), libc::SECCOMP_RET_KILL_PROCESS, "another architecture");
    }

    #[test]
    fn every_name_is_one_of_a_system_call() {
        // Those that only other architectures have.
        const ELSEWHERE: [&str; 2] = ["recv", "send"];
        let is_unknown = |name: &&str| CALLS.iter().all(|calls| (calls.number)(name).is_none());
        let unknown: Vec<&str> = ALLOWED.split_whitespace().filter(is_unknown).collect();
        assert_eq!(unknown, ELSEWHERE);
    }
}
