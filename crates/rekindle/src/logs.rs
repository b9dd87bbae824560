//! `rekindle logs`: what a build or an application printed, from the records and the files of the data directory.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use ids::{BuildId, MicrovmId};
use logs::{Destination, Follower, LogError, STORE};
use store::{Store, StoreError};

use crate::cli;
use crate::data_dir::{DataDir, DataDirError};
use crate::terminal::Escaper;

/// Between two looks for more.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// The records cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing was printed, or it is another server's, or too long ago.
    #[error(
        "{0} has no log in this data directory: it has printed nothing that is kept, or belongs to another server (--data-dir); \
        of what is not listed any more, `aws logs describe-log-streams` finds the log"
    )]
    None(String),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It cannot be printed.
    #[error("cannot print the log: {0}")]
    Print(#[from] io::Error),
}

/// Prints the log; what reads it may stop reading at any time.
pub(crate) fn run(args: &cli::Logs) -> Result<(), LogsError> {
    let data = DataDir::find(&args.data.data_dir)?;
    let to = find(&Store::open(&data.database())?, &args.id)?;
    let mut logs: Vec<Log> = to.iter().map(|to| Log::of(&data, to)).collect();
    if !logs.iter().any(|log| log.events.exists()) {
        return Err(LogsError::None(args.id.clone()));
    }
    let mut out = io::stdout().lock();
    let is_terminal = out.is_terminal();
    loop {
        for log in &mut logs {
            match log.print(&mut out, is_terminal) {
                Err(LogsError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                result => result?,
            }
        }
        if !args.follow {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

/// Where the output of a build or MicroVM goes.
fn find(records: &Store, id: &str) -> Result<Vec<Destination>, LogsError> {
    if let Ok(id) = id.parse::<MicrovmId>() {
        let microvm = records.read::<_, StoreError>(|tx| tx.microvm(id))?;
        return Ok(microvm.as_ref().and_then(node::destination).into_iter().collect());
    }
    let id = id.parse::<BuildId>().map_err(|_| LogsError::Id(id.to_owned()))?;
    let found = records.read::<_, StoreError>(|tx| {
        let Some(build) = tx.build(id)? else { return Ok(None) };
        let version = tx.version(&build.image, build.version)?;
        Ok(version.map(|version| (build, version)))
    })?;
    Ok(found.map_or_else(Vec::new, |(build, version)| build::destinations(&build, &version)))
}

/// What one of them printed to a stream that others may print to as well.
struct Log {
    source: u128,
    events: Follower,
}

impl Log {
    fn of(data: &DataDir, to: &Destination) -> Self {
        Self { source: to.source, events: Follower::of(&data.logs(), to) }
    }

    /// Prints what there is.
    fn print(&mut self, out: &mut impl Write, is_terminal: bool) -> Result<(), LogsError> {
        while self.events.exists() {
            let events = self.events.read()?;
            if events.is_empty() {
                break;
            }
            for event in events.iter().filter(|event| [self.source, STORE].contains(&event.source)) {
                if is_terminal {
                    let mut escaper = Escaper::default();
                    out.write_all(escaper.escape(&event.message).as_bytes())?;
                    out.write_all(escaper.finish().as_bytes())?;
                } else {
                    out.write_all(&event.message)?;
                }
                out.write_all(b"\n")?;
            }
        }
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use ::logs::{Logs, Quota};

    use super::*;

    #[test]
    fn what_is_no_id_is_refused_and_what_is_unknown_has_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let records = Store::open(&dir.path().join("db")).unwrap();
        for bad in ["", "../../etc/passwd", "microvm-x"] {
            assert!(matches!(find(&records, bad), Err(LogsError::Id(_))), "{bad}");
        }
        for unknown in [BuildId::random().to_string(), MicrovmId::random().to_string()] {
            assert_eq!(find(&records, &unknown).unwrap(), []);
        }
    }

    #[test]
    fn of_a_shared_stream_its_own_lines_are_printed_and_escaped_for_a_terminal_only() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Quota { stream: u64::MAX, account: u64::MAX };
        let logs = Logs::open(dir.path(), quota).unwrap();
        let to = |source| Destination {
            account: "123456789012".parse().unwrap(),
            group: "/g".into(),
            stream: "s".into(),
            source,
        };
        logs.output(to(1)).write(vec![b"\x1b[2J\xe2".to_vec()]).unwrap();
        logs.output(to(2)).write(vec![b"another's".to_vec()]).unwrap();
        let printed = |is_terminal| {
            let (mut out, events) = (Vec::new(), Follower::of(dir.path(), &to(1)));
            Log { source: 1, events }.print(&mut out, is_terminal).unwrap();
            out
        };
        assert_eq!(printed(false), b"\x1b[2J\xe2\n");
        assert_eq!(printed(true), b"\\u{1b}[2J\\xe2\n");
    }
}
