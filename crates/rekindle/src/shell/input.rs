//! What is typed into a shell: the keys of this terminal, or what is piped in.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::thread;

use rustix::fs::FileType;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Bytes;

/// Read at a time.
const CHUNK: usize = 16 << 10;
/// Chunks read ahead of the shell.
const BACKLOG: usize = 4;

/// Why nothing can be typed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Neither a terminal nor something to read to its end.
    #[error(
        "standard input is neither a terminal nor a pipe or a file; run this in a terminal (`docker run -it`, `ssh -t`), or \
         pipe the commands in"
    )]
    Unfit,
    /// It cannot be looked at.
    #[error("cannot use standard input: {0}")]
    Io(#[from] io::Error),
}

/// This program's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Terminal,
    Piped,
}

impl Input {
    pub(crate) fn of_this_program() -> Result<Self, InputError> {
        let stdin = io::stdin();
        let kind = rustix::fs::fstat(&stdin).map_err(io::Error::from)?.st_mode;
        Self::of(stdin.is_terminal(), FileType::from_raw_mode(kind)).ok_or(InputError::Unfit)
    }

    fn of(is_terminal: bool, kind: FileType) -> Option<Self> {
        match kind {
            _ if is_terminal => Some(Self::Terminal),
            FileType::Fifo | FileType::RegularFile | FileType::Socket => Some(Self::Piped),
            _ => None,
        }
    }

    /// Begins to read; a terminal is raw until the second value is dropped.
    pub(crate) fn start(self) -> io::Result<(Keys, Option<Raw>)> {
        let raw = (self == Self::Terminal).then(Raw::enter).transpose()?;
        Ok((Keys::read(), raw))
    }
}

/// What is typed, as it comes; ends with the input.
pub(crate) struct Keys(mpsc::Receiver<Bytes>);

impl Keys {
    /// In a thread that nothing waits for: a read of a terminal cannot be given up.
    fn read() -> Self {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        thread::spawn(move || {
            let mut chunk = vec![0; CHUNK];
            let mut stdin = io::stdin().lock();
            loop {
                match stdin.read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(count @ 1..) => {
                        if sender.blocking_send(Bytes::copy_from_slice(&chunk[..count])).is_err() {
                            return;
                        }
                    }
                    // A terminal that is gone has no more to say than one at its end.
                    Ok(0) | Err(_) => return,
                }
            }
        });
        Self(receiver)
    }

    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// A terminal that passes on every key as it is. Dropped, it is as it was.
pub(crate) struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to put back.
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Drain, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_keys_or_an_end_is_taken() {
        assert_eq!(Input::of(true, FileType::CharacterDevice), Some(Input::Terminal));
        assert_eq!(Input::of(false, FileType::Fifo), Some(Input::Piped));
        assert_eq!(Input::of(false, FileType::RegularFile), Some(Input::Piped));
        assert_eq!(Input::of(false, FileType::CharacterDevice), None, "/dev/null");
        assert_eq!(Input::of(false, FileType::Directory), None);
    }
}
