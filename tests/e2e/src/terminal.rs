//! A terminal with a program in it, as a person has one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// For what is expected to be shown, or the program to end; guests are slow without hardware virtualization.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal whose only program runs until it ends by itself.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    /// The program's side, kept open for a look at its settings.
    line: OwnedFd,
    program: Child,
    shown: String,
}

impl Terminal {
    /// Starts `command` in a terminal of its own, of `columns` by `rows`.
    ///
    /// # Panics
    /// When there is no terminal, or the program cannot be started.
    #[must_use]
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, vec![]).unwrap();
        let line =
            rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let own = || line.try_clone().unwrap();
        command.stdin(own()).stdout(own()).stderr(own());
        // SAFETY: between fork and exec only two system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(io::stdin())?)
            });
        }
        let terminal =
            Self { keyboard: keyboard.into(), program: command.spawn().unwrap(), line, shown: String::new() };
        terminal.resize(columns, rows);
        terminal
    }

    /// Makes it another size, which its program is told.
    ///
    /// # Panics
    /// When that fails.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.keyboard.as_fd(), size).unwrap();
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until `text` is shown, and forgets what came up to it.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            assert!(self.read_on(until), "no {text} in {:?}", self.shown);
        }
    }

    /// Whether what is typed is shown by the terminal itself and handed on in lines, as outside of programs that want each
    /// key.
    ///
    /// # Panics
    /// When its settings cannot be read.
    #[must_use]
    pub fn is_for_lines(&self) -> bool {
        let lines = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcgetattr(&self.line).unwrap().local_modes.contains(lines)
    }

    /// How the program ends, which it does now.
    ///
    /// # Panics
    /// When it does not.
    pub fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.program.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the program goes on, and shows {:?}", self.shown);
            // It waits for what it shows to be read.
            self.read_on(Instant::now() + Duration::from_millis(50));
        }
    }

    /// Whether more was shown by then.
    fn read_on(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut keyboard = [PollFd::new(&self.keyboard, PollFlags::IN)];
        if poll(&mut keyboard, Some(&left)).unwrap() == 0 {
            return false;
        }
        let mut buffer = [0; 4096];
        let count = self.keyboard.read(&mut buffer).unwrap();
        self.shown += &String::from_utf8_lossy(&buffer[..count]);
        true
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where it has not ended a test has failed, which says so itself.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
