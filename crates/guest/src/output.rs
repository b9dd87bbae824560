//! What an application says without being asked: its output, and its end; and how far that has been written down.

use std::sync::Arc;
use std::time::Duration;

use agent_proto::{Event, LogSource};
use logs::{Lines, Output};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

/// How long the end of a line is waited for.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// What is heard; the senders go when the session does.
pub(crate) struct Heard {
    /// The exit code of the application's first process, once that has ended.
    pub(crate) exited: watch::Receiver<Option<i32>>,
    /// The last mark before which everything has been written.
    pub(crate) written: watch::Receiver<u64>,
}

/// Writes output to `log` in the background.
pub(crate) fn listen(events: mpsc::Receiver<Event>, log: Arc<Output>) -> Heard {
    let (exit, exited) = watch::channel(None);
    let (mark, written) = watch::channel(0);
    tokio::spawn(forward(events, log, exit, mark));
    Heard { exited, written }
}

async fn forward(
    mut events: mpsc::Receiver<Event>,
    log: Arc<Output>,
    exited: watch::Sender<Option<i32>>,
    written: watch::Sender<u64>,
) {
    let mut sources =
        [LogSource::Stdout, LogSource::Stderr, LogSource::Build, LogSource::Kernel].map(Source::new);
    loop {
        let flush_at = sources.iter().filter_map(|source| source.flush_at).min();
        let event = match flush_at {
            Some(at) => timeout_at(at, events.recv()).await,
            None => Ok(events.recv().await),
        };
        let mut lines = Vec::new();
        match event {
            Ok(Some(Event::Log { source, bytes })) => {
                let from = sources.iter_mut().filter(|from| from.of == source);
                from.for_each(|from| from.take(&bytes, &mut lines));
            }
            Ok(Some(Event::AppExited { code })) => drop(exited.send_replace(Some(code))),
            // What came before has been written with the event that it came with.
            Ok(Some(Event::Flushed { mark })) => drop(written.send_replace(mark)),
            Ok(None) => break,
            Err(_) => {
                let due = sources.iter_mut().filter(|source| source.flush_at == flush_at);
                lines.extend(due.filter_map(Source::flush));
            }
        }
        write(&log, lines);
    }
    write(&log, sources.iter_mut().filter_map(Source::flush).collect());
    log.rest();
}

fn write(log: &Output, lines: Vec<Vec<u8>>) {
    if let Err(error) = log.write(lines) {
        tracing::warn!(%error, "output of a guest is lost");
    }
}

/// One of the outputs, whose lines are not mixed with another's.
struct Source {
    of: LogSource,
    lines: Lines,
    /// When what there is of a line is taken for all of it.
    flush_at: Option<Instant>,
}

impl Source {
    fn new(of: LogSource) -> Self {
        Self { of, lines: Lines::default(), flush_at: None }
    }

    fn take(&mut self, bytes: &[u8], whole: &mut Vec<Vec<u8>>) {
        self.lines.push(bytes, |line| whole.push(line));
        self.flush_at = self.lines.is_begun().then(|| Instant::now() + FLUSH_AFTER);
    }

    fn flush(&mut self) -> Option<Vec<u8>> {
        self.flush_at = None;
        self.lines.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use logs::{Destination, Follower, Logs, Quota};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn bed(dir: &Path) -> (mpsc::Sender<Event>, Heard, Follower) {
        let quota = Quota { stream: u64::MAX, account: u64::MAX };
        let account = "123456789012".parse().unwrap();
        let to = Destination { account, group: "/g".into(), stream: "s".into(), source: 1 };
        let follower = Follower::of(dir, &to);
        let log = Logs::open(dir, quota).unwrap().output(to);
        let (events, receiver) = mpsc::channel(8);
        (events, listen(receiver, Arc::new(log)), follower)
    }

    fn log(source: LogSource, text: &str) -> Event {
        Event::Log { source, bytes: text.as_bytes().to_vec() }
    }

    async fn lines(follower: &mut Follower, count: usize) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut found = Vec::new();
        while found.len() < count {
            assert!(Instant::now() < deadline, "{found:?}");
            tokio::task::yield_now().await;
            let read = if follower.exists() { follower.read().unwrap() } else { vec![] };
            found.extend(read.into_iter().map(|event| String::from_utf8(event.message).unwrap()));
        }
        found
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn outputs_are_cut_into_lines_each_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (events, mut heard, mut follower) = bed(dir.path());
        for (source, text) in [
            (LogSource::Stdout, "out"),
            (LogSource::Stderr, "err one\nerr"),
            (LogSource::Stdout, "put\n"),
            (LogSource::Stderr, " two\n"),
        ] {
            events.send(log(source, text)).await.unwrap();
        }
        assert_eq!(lines(&mut follower, 3).await, ["err one", "output", "err two"]);
        events.send(log(LogSource::Stdout, "a prompt: ")).await.unwrap();
        assert_eq!(lines(&mut follower, 1).await, ["a prompt: "], "flushed while nothing follows");
        events.send(log(LogSource::Stderr, "the last words")).await.unwrap();
        events.send(Event::AppExited { code: 3 }).await.unwrap();
        drop(events);
        assert_eq!(*heard.exited.wait_for(Option::is_some).await.unwrap(), Some(3));
        assert_eq!(lines(&mut follower, 1).await, ["the last words"]);
    }

    #[tokio::test]
    async fn a_mark_says_that_what_came_before_it_has_been_written() {
        let dir = tempfile::tempdir().unwrap();
        let (events, mut heard, mut follower) = bed(dir.path());
        events.send(log(LogSource::Stdout, "whole\n")).await.unwrap();
        events.send(Event::Flushed { mark: 7 }).await.unwrap();
        heard.written.wait_for(|mark| *mark == 7).await.unwrap();
        let read = follower.read().unwrap();
        assert_eq!(read.into_iter().map(|event| event.message).collect::<Vec<_>>(), [b"whole"]);
    }
}
