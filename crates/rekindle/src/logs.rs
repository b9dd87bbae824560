//! `rekindle logs`: what a build or an application printed, from the files of the data directory.

use std::io::{self, IsTerminal, Read, Write};
use std::thread;
use std::time::Duration;

use ids::{BuildId, MicrovmId};
use logs::{LogError, LogFile, Logs};

use crate::cli;
use crate::data_dir::{DataDir, DataDirError};
use crate::terminal::Escaper;

/// Between two looks for more.
const PAUSE: Duration = Duration::from_millis(100);
/// Read at a time.
const CHUNK: usize = 64 << 10;

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogsError {
    /// Not an id.
    #[error(
        "{0:?} is neither a build id (a uuid) nor a MicroVM id (microvm-<uuid>); list-microvm-image-builds and list-microvms print them"
    )]
    Id(String),
    /// The data directory is not one.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// Nothing was printed, or it is another server's.
    #[error(
        "{0} has no log in this data directory: it has printed nothing yet, or belongs to another server (--data-dir)"
    )]
    None(String),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It cannot be read on, or printed.
    #[error("cannot print the log: {0}")]
    Print(#[from] io::Error),
}

/// Prints the log; what reads it may stop reading at any time.
pub(crate) fn run(args: &cli::Logs) -> Result<(), LogsError> {
    let data = DataDir::find(&args.data.data_dir)?;
    let log = find(&Logs::new(data.logs()), &args.id)?;
    let reader = log.reader()?.ok_or_else(|| LogsError::None(args.id.clone()))?;
    let out = io::stdout().lock();
    let escaper = out.is_terminal().then(Escaper::default);
    match print(reader, out, escaper, args.follow) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn find(logs: &Logs, id: &str) -> Result<LogFile, LogsError> {
    if let Ok(id) = id.parse::<MicrovmId>() {
        Ok(logs.microvm(id))
    } else {
        let id = id.parse::<BuildId>().map_err(|_| LogsError::Id(id.to_owned()))?;
        Ok(logs.build(id))
    }
}

fn print(
    mut from: impl Read,
    mut to: impl Write,
    mut escaper: Option<Escaper>,
    follow: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer)?;
        match &mut escaper {
            Some(escaper) => to.write_all(escaper.escape(&buffer[..read]).as_bytes())?,
            None => to.write_all(&buffer[..read])?,
        }
        if read == 0 {
            to.flush()?;
            if !follow {
                return to.write_all(escaper.unwrap_or_default().finish().as_bytes());
            }
            thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_to_their_logs() {
        let logs = Logs::new("/x");
        let (build, microvm) = (BuildId::random().to_string(), MicrovmId::random().to_string());
        assert!(find(&logs, &build).unwrap().path().starts_with("/x/builds"));
        assert!(find(&logs, &microvm).unwrap().path().starts_with("/x/microvms"));
        for bad in ["", "../../etc/passwd", "microvm-x"] {
            assert!(find(&logs, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_are_escaped_for_a_terminal_only() {
        let printed = |escaper| {
            let mut out = Vec::new();
            print(&b"\x1b[2J\xe2"[..], &mut out, escaper, false).unwrap();
            out
        };
        assert_eq!(printed(None), b"\x1b[2J\xe2");
        assert_eq!(printed(Some(Escaper::default())), b"\\u{1b}[2J\\xe2");
    }
}
