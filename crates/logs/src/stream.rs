//! One stream: events are added at its end, and go with the segments at its beginning.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::record::{self, Line, Raw, STORE};
use crate::segment::{self, Summary};
use crate::{LogError, json_file, retention};

/// Bytes after which a segment is sealed. What is dropped is dropped by whole segments.
pub(crate) const SEGMENT: u64 = 2 << 20;
/// Bytes from which on a segment is sealed at the end of a life: below, many short lives would make as many files.
const WORTH_SEALING: u64 = 64 << 10;
const META: &str = "stream.json";

/// What clients see of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// When it was made, in milliseconds of Unix time.
    pub created: u64,
    /// Least timestamp of its events.
    pub oldest: Option<u64>,
    /// Greatest timestamp of its events.
    pub newest: Option<u64>,
    /// When the last one was added.
    pub ingested: Option<u64>,
    /// Bytes that it takes.
    pub bytes: u64,
}

/// A stream. Its directory is its own.
#[derive(Debug)]
pub struct Stream {
    dir: PathBuf,
    meta: Meta,
    /// What its account's streams take together.
    usage: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    name: String,
    created: u64,
}

#[derive(Debug, Default)]
struct State {
    segments: Vec<Summary>,
    next: u64,
    ingested: u64,
    /// It was deleted: whoever still has it must ask for it anew.
    gone: bool,
}

impl Stream {
    /// Makes an empty one.
    pub(crate) fn create(dir: PathBuf, name: &str, now: u64, usage: Arc<AtomicU64>) -> io::Result<Self> {
        let meta = Meta { name: name.to_owned(), created: now };
        fs::create_dir_all(&dir)?;
        json_file::write(&dir.join(META), &meta, false)?;
        Ok(Self { dir, meta, usage, state: Mutex::default() })
    }

    /// The one in `dir`, as an earlier server left it; nothing where it was not made, or not removed, to the end.
    pub(crate) fn load(dir: PathBuf, usage: Arc<AtomicU64>) -> io::Result<Option<Self>> {
        let Some(meta) = json_file::read::<Meta>(&dir.join(META))? else { return Ok(None) };
        let mut segments = Vec::new();
        for (summary, path) in segment::list(&dir)? {
            segments.push(if summary.sealed { summary } else { segment::recover(summary.first, &path)? });
        }
        let next = segments.last().map_or(0, Summary::next);
        let ingested = segments.last().map_or(0, |last| last.ingested);
        usage.fetch_add(segments.iter().map(|segment| segment.bytes).sum(), Ordering::Relaxed);
        Ok(Some(Self {
            dir,
            meta,
            usage,
            state: Mutex::new(State { segments, next, ingested, gone: false }),
        }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.meta.name
    }

    /// Where its segments are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// When it was made, in milliseconds of Unix time.
    pub(crate) fn created(&self) -> u64 {
        self.meta.created
    }

    /// The number that its next event gets.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.lock().next
    }

    /// What clients see of it.
    #[must_use]
    pub fn info(&self) -> StreamInfo {
        let state = self.lock();
        let filled = || state.segments.iter().filter(|segment| segment.count > 0);
        StreamInfo {
            name: self.meta.name.clone(),
            created: self.meta.created,
            oldest: filled().map(|segment| segment.oldest).min(),
            newest: filled().map(|segment| segment.newest).max(),
            ingested: filled().map(|segment| segment.ingested).max(),
            bytes: state.segments.iter().map(|segment| segment.bytes).sum(),
        }
    }

    /// Adds lines in their order. Where the stream then takes more than `limit` bytes, its oldest segments go, and a
    /// line says so. Returns whether it took them: it does not once it is deleted.
    pub(crate) fn append(&self, lines: &[Line], now: u64, limit: u64) -> Result<bool, LogError> {
        let mut state = self.lock();
        if state.gone {
            return Ok(false);
        }
        self.write(&mut state, lines, now).map_err(LogError::new("write", &self.dir))?;
        let mut dropped = 0;
        while state.segments.len() > 1 && bytes(&state) > limit {
            dropped += self.drop_first(&mut state)?;
        }
        self.tell(&mut state, dropped, now, "the stream takes as much as one may")?;
        Ok(true)
    }

    /// Nothing more is added for now: its last segment is closed where that saves the next start looking through much.
    pub(crate) fn rest(&self) -> Result<(), LogError> {
        let is_long = self.lock().segments.last().is_some_and(|last| last.bytes >= WORTH_SEALING);
        if is_long { self.seal() } else { Ok(()) }
    }

    /// Closes its last segment.
    pub(crate) fn seal(&self) -> Result<(), LogError> {
        let mut state = self.lock();
        if state.gone {
            return Ok(());
        }
        self.seal_last(&mut state).map_err(LogError::new("close", &self.dir))
    }

    /// Drops the oldest segment because the account is full.
    pub(crate) fn make_room(&self, now: u64) -> Result<(), LogError> {
        let mut state = self.lock();
        if state.gone || state.segments.is_empty() {
            return Ok(());
        }
        let dropped = self.drop_first(&mut state)?;
        self.tell(&mut state, dropped, now, "the logs of the account take as much as they may")
    }

    /// When the last event was added, or it was made.
    pub(crate) fn last_change(&self) -> u64 {
        self.lock().ingested.max(self.meta.created)
    }

    /// When the last event of its oldest segment was added.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.lock().segments.first().map(|segment| segment.ingested)
    }

    /// Removes what is over. Returns whether nothing is left of a stream that old itself.
    pub(crate) fn expire(&self, cutoff: u64) -> Result<bool, LogError> {
        let mut state = self.lock();
        while state.segments.first().is_some_and(|segment| retention::is_over(segment, cutoff)) {
            self.remove_first(&mut state)?;
        }
        Ok(state.segments.is_empty() && self.meta.created < cutoff && state.ingested < cutoff)
    }

    /// Removes it with all that is in it.
    pub(crate) fn delete(&self) -> Result<(), LogError> {
        let mut state = self.lock();
        state.gone = true;
        self.usage.fetch_sub(bytes(&state), Ordering::Relaxed);
        state.segments.clear();
        // First what makes it one, so that a crash in between leaves none.
        let remove = || fs::remove_file(self.dir.join(META)).and_then(|()| fs::remove_dir_all(&self.dir));
        match remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LogError::new("remove", &self.dir)(error))
            }
            _ => Ok(()),
        }
    }

    /// The segments as they are now.
    pub(crate) fn segments(&self) -> Vec<Summary> {
        self.lock().segments.clone()
    }

    /// The bytes of a segment as it was when it was listed; none once it is dropped.
    pub(crate) fn read(&self, segment: &Summary) -> Result<Vec<u8>, LogError> {
        let read = || {
            let file = {
                let state = self.lock();
                match state.segments.iter().find(|now| now.first == segment.first) {
                    Some(now) => File::open(self.dir.join(now.file()))?,
                    None => return Ok(Vec::new()),
                }
            };
            let mut bytes = vec![0; usize::try_from(segment.bytes).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        read().map_err(LogError::new("read", &self.dir))
    }

    fn write(&self, state: &mut State, lines: &[Line], now: u64) -> io::Result<()> {
        let mut lines = lines.iter().peekable();
        while lines.peek().is_some() {
            let full =
                |state: &State| state.segments.last().is_none_or(|last| last.sealed || last.bytes >= SEGMENT);
            if full(state) {
                self.seal_last(state)?;
                state.segments.push(Summary::open(state.next));
            }
            let Some(last) = state.segments.last_mut() else { continue };
            let (mut buffer, mut filled) = (Vec::new(), last.clone());
            // A clock that is set back changes nothing of the order.
            state.ingested = state.ingested.max(now);
            while filled.bytes < SEGMENT
                && let Some(line) = lines.next()
            {
                let timestamp = line.timestamp.unwrap_or(state.ingested);
                let Line { source, message, .. } = line;
                let event = Raw { timestamp, ingested: state.ingested, source: *source, message };
                record::encode(event, &mut buffer);
                filled.add(timestamp, state.ingested, last.bytes + buffer.len() as u64);
            }
            // Where a write that failed left something, this goes over it.
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(self.dir.join(last.file()))?;
            if let Err(error) = file.write_all_at(&buffer, last.bytes) {
                let _ = file.set_len(last.bytes);
                return Err(error);
            }
            self.usage.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            state.next = filled.next();
            *last = filled;
        }
        Ok(())
    }

    fn seal_last(&self, state: &mut State) -> io::Result<()> {
        let Some(last) = state.segments.last_mut().filter(|last| !last.sealed) else { return Ok(()) };
        let sealed = Summary { sealed: true, ..last.clone() };
        if sealed.count > 0 {
            fs::rename(self.dir.join(last.file()), self.dir.join(sealed.file()))?;
            *last = sealed;
        } else {
            state.segments.pop();
        }
        Ok(())
    }

    /// Drops the first segment, and says how many lines of builds, applications and clients were in it.
    fn drop_first(&self, state: &mut State) -> Result<u64, LogError> {
        let lost = match state.segments.first() {
            Some(first) => fs::read(self.dir.join(first.file())).unwrap_or_default(),
            None => return Ok(0),
        };
        self.remove_first(state)?;
        Ok(record::events(&lost).filter(|(event, _)| event.source != STORE).count() as u64)
    }

    fn remove_first(&self, state: &mut State) -> Result<(), LogError> {
        let Some(first) = state.segments.first() else { return Ok(()) };
        match fs::remove_file(self.dir.join(first.file())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::new("make room in", &self.dir)(error));
            }
            _ => {}
        }
        self.usage.fetch_sub(first.bytes, Ordering::Relaxed);
        state.segments.remove(0);
        Ok(())
    }

    fn tell(&self, state: &mut State, dropped: u64, now: u64, why: &str) -> Result<(), LogError> {
        if dropped == 0 {
            return Ok(());
        }
        let message = format!("rekindle: the oldest {dropped} lines of this stream were dropped: {why}");
        let line = Line { timestamp: None, source: STORE, message: message.into_bytes() };
        self.write(state, &[line], now).map_err(LogError::new("write", &self.dir))
    }

    /// What is behind the lock stays true wherever a holder of it panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(state: &State) -> u64 {
    state.segments.iter().map(|segment| segment.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Search, search};

    const NO_LIMIT: u64 = u64::MAX;

    fn stream(dir: &tempfile::TempDir) -> Arc<Stream> {
        let dir = dir.path().join("stream");
        Arc::new(match Stream::load(dir.clone(), Arc::default()).unwrap() {
            Some(stream) => stream,
            None => Stream::create(dir, "s", 1, Arc::default()).unwrap(),
        })
    }

    fn line(message: impl Into<Vec<u8>>) -> Line {
        Line { timestamp: None, source: 1, message: message.into() }
    }

    fn messages(stream: &Arc<Stream>) -> Vec<String> {
        let page = search(&[Arc::clone(stream)], &Search::all()).unwrap();
        page.events.into_iter().map(|found| String::from_utf8(found.event.message).unwrap()).collect()
    }

    #[test]
    fn a_stream_goes_on_where_an_earlier_server_left_it() {
        let dir = tempfile::tempdir().unwrap();
        stream(&dir).append(&[line("one")], 10, NO_LIMIT).unwrap();
        let file = dir.path().join("stream").join(Summary::open(0).file());
        let whole = fs::read(&file).unwrap();
        fs::write(&file, [&whole[..], b"torn"].concat()).unwrap();
        let again = stream(&dir);
        again.append(&[line("two"), line("")], 5, NO_LIMIT).unwrap();
        assert_eq!(messages(&again), ["one", "two", ""]);
        let info = again.info();
        assert_eq!((info.oldest, info.newest, info.ingested), (Some(10), Some(10), Some(10)), "no step back");
        again.seal().unwrap();
        again.append(&[line("three")], 20, NO_LIMIT).unwrap();
        assert_eq!(messages(&stream(&dir)), ["one", "two", "", "three"]);
        assert_eq!(stream(&dir).info(), again.info());
    }

    #[test]
    fn a_full_stream_drops_its_oldest_lines_and_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(&dir);
        let (limit, long) = (3 * SEGMENT, "x".repeat(100_000));
        for number in 0..100 {
            stream.append(&[line(format!("{number} {long}"))], number, limit).unwrap();
        }
        let read = messages(&stream);
        assert!(stream.info().bytes <= limit + SEGMENT);
        assert_eq!(stream.usage.load(Ordering::Relaxed), stream.info().bytes);
        assert!(read.last().unwrap().starts_with("99 "));
        let told =
            |text: &String| text.strip_prefix("rekindle: the oldest ")?.split(' ').next()?.parse().ok();
        let dropped: Vec<usize> = read.iter().filter_map(told).collect();
        let kept = read.len() - dropped.len();
        assert!(!dropped.is_empty() && dropped.iter().sum::<usize>() + kept >= 80, "{dropped:?} {kept}");
        let first: usize = read.iter().find_map(|text| text.split(' ').next()?.parse().ok()).unwrap();
        assert_eq!(first + kept, 100, "what is dropped is the oldest");
    }

    #[test]
    fn a_write_that_fails_leaves_the_stream_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(&dir);
        stream.append(&[line("one")], 1, NO_LIMIT).unwrap();
        stream.seal().unwrap();
        let blocked = dir.path().join("stream").join(Summary::open(1).file());
        fs::create_dir(&blocked).unwrap();
        let error = stream.append(&[line("two")], 2, NO_LIMIT).unwrap_err().to_string();
        assert!(error.contains("cannot write the log"), "{error}");
        fs::remove_dir(&blocked).unwrap();
        stream.append(&[line("three")], 3, NO_LIMIT).unwrap();
        assert_eq!(messages(&stream), ["one", "three"]);
    }

    #[test]
    fn segments_go_with_their_retention_and_the_stream_with_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(&dir);
        for at in [10, 20] {
            stream.append(&[line(at.to_string())], at, NO_LIMIT).unwrap();
            stream.seal().unwrap();
        }
        assert!(!stream.expire(20).unwrap());
        assert_eq!(messages(&stream), ["20"]);
        assert!(stream.expire(21).unwrap() && messages(&stream).is_empty());
        assert_eq!(stream.next(), 2);
    }

    #[test]
    fn a_deleted_stream_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(&dir);
        stream.append(&[line("x")], 1, NO_LIMIT).unwrap();
        stream.delete().unwrap();
        assert!(!stream.append(&[line("y")], 1, NO_LIMIT).unwrap() && !stream.dir().exists());
    }
}
