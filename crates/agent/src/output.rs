//! Output of the application and of builds: gathered for a moment, then told as events; at once where it must be complete.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agent_proto::{Event, LogSource, MAX_LOG_CHUNK};
use rustix::io::ioctl_fionread;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How long output may wait for more of it.
const GATHER_FOR: Duration = Duration::from_millis(50);

/// Answered once everything that was in the pipe has become events.
type Flush = oneshot::Sender<()>;

/// Where output becomes events.
pub(crate) struct Output {
    events: mpsc::Sender<Event>,
    /// One of each pipe that is read.
    pipes: Mutex<Vec<mpsc::Sender<Flush>>>,
    last_mark: AtomicU64,
    /// The last mark that the host was told.
    told: watch::Receiver<u64>,
}

impl Output {
    /// Output that becomes `events`, of which the marks that are `told` come back.
    pub(crate) fn new(events: mpsc::Sender<Event>, told: watch::Receiver<u64>) -> Self {
        Self { events, pipes: Mutex::default(), last_mark: AtomicU64::new(0), told }
    }

    /// Tells the host; waits while it is behind or away.
    pub(crate) async fn tell(&self, event: Event) {
        // The receiver lives as long as the agent.
        let _ = self.events.send(event).await;
    }

    /// Tells everything that is written to `pipe`, which does not block, and shows it to `watch`.
    pub(crate) async fn forward<R: AsyncRead + AsFd + Unpin>(
        &self,
        pipe: &mut R,
        source: LogSource,
        mut watch: impl FnMut(&[u8]),
    ) {
        let mut flushes = self.register();
        let mut buffer = vec![0; MAX_LOG_CHUNK];
        loop {
            let (gathered, flush) = gather(pipe, &mut buffer, &mut flushes).await;
            if gathered == 0 && flush.is_none() {
                return;
            }
            let mut held = if flush.is_some() { held_by(pipe) } else { 0 };
            let mut count = gathered;
            loop {
                if count > 0 {
                    watch(&buffer[..count]);
                    self.tell(Event::Log { source, bytes: buffer[..count].to_vec() }).await;
                }
                count = take(pipe, &mut buffer, held);
                held -= count;
                if count == 0 {
                    break;
                }
            }
            if let Some(flush) = flush {
                // Who asked may have given up.
                let _ = flush.send(());
            }
        }
    }

    fn register(&self) -> mpsc::Receiver<Flush> {
        let (pipe, flushes) = mpsc::channel(1);
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.retain(|pipe| !pipe.is_closed());
        pipes.push(pipe);
        flushes
    }

    /// Has everything that the pipes hold become events, and a mark behind them, which is returned.
    pub(crate) async fn flush(&self) -> u64 {
        let pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for pipe in pipes {
            let (flush, done) = oneshot::channel();
            // A pipe that was closed has been read to its end.
            if pipe.send(flush).await.is_ok() {
                let _ = done.await;
            }
        }
        let mark = self.last_mark.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell(Event::Flushed { mark }).await;
        mark
    }

    /// Flushes, and returns once the host has been told everything.
    pub(crate) async fn flush_to_host(&self) {
        let mark = self.flush().await;
        // Its sender lives as long as the agent.
        let _ = self.told.clone().wait_for(|told| *told >= mark).await;
    }
}

/// Reads what there is and what follows within [`GATHER_FOR`], unless it is to be flushed: telling the host of every line
/// as it comes would take time from the very request that the line is about. Nothing and no flush is the end.
async fn gather<R: AsyncRead + Unpin>(
    pipe: &mut R,
    buffer: &mut [u8],
    flushes: &mut mpsc::Receiver<Flush>,
) -> (usize, Option<Flush>) {
    let mut count = 0;
    let mut deadline = None;
    while count < buffer.len() {
        tokio::select! {
            Some(flush) = flushes.recv() => return (count, Some(flush)),
            read = pipe.read(&mut buffer[count..]) => match read {
                Ok(more @ 1..) => count += more,
                // The end, or a failure, which the next read meets again.
                Ok(_) | Err(_) => break,
            },
            () = due(deadline) => break,
        }
        deadline = deadline.or_else(|| Some(Instant::now() + GATHER_FOR));
    }
    (count, None)
}

async fn due(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Bytes in the pipe; a program that goes on writing does not make it more.
fn held_by(pipe: &impl AsFd) -> usize {
    ioctl_fionread(pipe).ok().and_then(|held| usize::try_from(held).ok()).unwrap_or_default()
}

/// Reads what is in the pipe, past the runtime, which may not have heard of it yet.
fn take(pipe: &impl AsFd, buffer: &mut [u8], at_most: usize) -> usize {
    let at_most = at_most.min(buffer.len());
    // What fails here fails for the next read too.
    rustix::io::read(pipe, &mut buffer[..at_most]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tokio::net::unix::pipe::Receiver;

    use super::*;

    /// An output with one pipe, whose other end is returned, and what becomes of it.
    fn bed() -> (Arc<Output>, std::io::PipeWriter, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(8);
        let output = Arc::new(Output::new(events, watch::channel(0).1));
        let (reader, writer) = std::io::pipe().unwrap();
        let mut reader = Receiver::from_owned_fd(reader.into()).unwrap();
        let forwarding = Arc::clone(&output);
        tokio::spawn(async move { forwarding.forward(&mut reader, LogSource::Stdout, |_| {}).await });
        (output, writer, receiver)
    }

    fn drain(events: &mut mpsc::Receiver<Event>) -> (String, Vec<u64>) {
        let (mut text, mut marks) = (String::new(), Vec::new());
        while let Ok(event) = events.try_recv() {
            match event {
                Event::Log { bytes, .. } => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Event::Flushed { mark } => marks.push(mark),
                Event::AppExited { .. } => panic!("nothing has exited"),
            }
        }
        (text, marks)
    }

    /// Time stands still, so that nothing but the flush can end the gathering.
    #[tokio::test(start_paused = true)]
    async fn a_flush_tells_everything_before_its_mark() {
        let (output, mut writer, mut events) = bed();
        tokio::task::yield_now().await;
        writer.write_all(b"one ").unwrap();
        assert_eq!(output.flush().await, 1);
        assert_eq!(drain(&mut events), ("one ".to_owned(), vec![1]));
        writer.write_all(&vec![b'x'; 50_000]).unwrap();
        assert_eq!(output.flush().await, 2);
        let (text, marks) = drain(&mut events);
        assert_eq!((text.len(), marks), (50_000, vec![2]));
        assert_eq!(output.flush().await, 3);
        assert_eq!(drain(&mut events), (String::new(), vec![3]));
    }

    #[tokio::test]
    async fn output_comes_without_a_flush_and_a_closed_pipe_holds_none_up() {
        let (output, mut writer, mut events) = bed();
        writer.write_all(b"by itself").unwrap();
        let told = Event::Log { source: LogSource::Stdout, bytes: b"by itself".to_vec() };
        assert_eq!(events.recv().await, Some(told));
        writer.write_all(b"the last").unwrap();
        drop(writer);
        output.flush().await;
        assert_eq!(drain(&mut events), ("the last".to_owned(), vec![1]));
    }
}
