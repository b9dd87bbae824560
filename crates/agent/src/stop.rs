//! Asking the application to end: its first process gets the image's STOPSIGNAL.

use std::fs;
use std::io;
use std::time::Duration;

use agent_proto::AppSpec;
use tokio::sync::watch;

use crate::error::{Error, trying};

/// Those of signal(7), without `SIG`. Docker takes them with it, without it, and as numbers.
const NAMES: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];
/// Real-time signals as the C library counts them, which keeps two for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Sends the container's first process its signal, and returns once it has `exited`, or after `within`. Returns at once
/// where it does not heed that signal: nothing would come of waiting.
pub(crate) async fn stop(
    spec: &AppSpec,
    helper: u32,
    mut exited: watch::Receiver<bool>,
    within: Duration,
) -> Result<(), Error> {
    const ATTEMPT: &str = "stopping the application";
    let signal = parse(&spec.config.stop_signal).unwrap_or(libc::SIGTERM);
    let Some(first) = first_process(helper) else { return Ok(()) };
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap_or_default();
    if *exited.borrow() || !heeds(&status, signal) {
        return Ok(());
    }
    // SAFETY: the call takes numbers only; the id is of the helper's child, which the helper has not waited for.
    if unsafe { libc::kill(first, signal) } < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(trying(ATTEMPT)(error)) };
    }
    // One that takes longer is ended with its machine.
    let _ = tokio::time::timeout(within, exited.wait_for(|exited| *exited)).await;
    Ok(())
}

/// The helper's only child.
fn first_process(helper: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{helper}/task/{helper}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Whether the first process of a container is told of a signal: the kernel keeps from it what it neither catches nor
/// blocks, which may be to wait for it.
fn heeds(status: &str, signal: i32) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
    };
    (mask("SigCgt:") | mask("SigBlk:")) >> (signal - 1) & 1 == 1
}

/// `None` where it is empty, or no signal.
fn parse(signal: &str) -> Option<i32> {
    let name = signal.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str, sign| rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from);
    let number = if let Ok(number) = name.parse() {
        Some(number)
    } else if let Some(rest) = name.strip_prefix("RTMIN") {
        if rest.is_empty() { Some(RTMIN) } else { offset(rest, '+').map(|by| RTMIN + by) }
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        if rest.is_empty() { Some(RTMAX) } else { offset(rest, '-').map(|by| RTMAX - by) }
    } else {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    };
    number.filter(|number| (1..=RTMAX).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_docker_reads_them() {
        for (text, number) in [
            ("SIGINT", libc::SIGINT),
            ("quit", libc::SIGQUIT),
            ("9", libc::SIGKILL),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMIN", 34),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIGNOTHING", "RTMIN+31", "RTMIN+-1", "RTMAX-200"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_signal_is_heeded_that_is_caught_or_waited_for() {
        let status = "SigBlk:\t0000000000000200\nSigIgn:\t0000000000004000\nSigCgt:\t0000000000000002\n";
        assert!(heeds(status, libc::SIGINT) && heeds(status, libc::SIGUSR1));
        assert!(!heeds(status, libc::SIGTERM) && !heeds("", libc::SIGTERM));
    }
}
