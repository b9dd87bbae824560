//! Reading a stream while it is written, by its directory: also from another process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::record::{self, Event, MAX_MESSAGE};
use crate::segment::{self, Summary};
use crate::{Destination, LogError, json_file};

/// Read at a time: the longest event fits, with its head.
const CHUNK: usize = MAX_MESSAGE + (1 << 10);

/// How much is read at once.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Most events.
    pub events: usize,
    /// Most bytes of messages, though one event is always read.
    pub bytes: usize,
}

impl Room {
    const UNLIMITED: Self = Self { events: usize::MAX, bytes: usize::MAX };
}

/// Reads the events of a stream in the order in which they were added.
#[derive(Debug, Clone)]
pub struct Follower {
    dir: PathBuf,
    /// Number of the event to be read next.
    next: u64,
    place: Place,
}

/// Where reading stopped in a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    /// The segment, by its first event.
    first: u64,
    /// Number of the event there.
    number: u64,
    offset: u64,
}

impl Follower {
    /// From the event with this number on, or the oldest one kept.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, next: u64) -> Self {
        Self { dir: dir.into(), next, place: Place::default() }
    }

    /// The same for what goes to `to` of the logs kept in `logs`, whether or not there is anything yet.
    #[must_use]
    pub fn of(logs: &Path, to: &Destination) -> Self {
        let group = logs.join(to.account.to_string()).join(json_file::hashed(&to.group));
        Self::new(group.join(json_file::hashed(&to.stream)), 0)
    }

    /// Whether there is such a stream now.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// The number of the event that is read next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The next events; none where this is the present end.
    ///
    /// # Errors
    /// [`LogError`] where a segment cannot be read.
    pub fn read(&mut self) -> Result<Vec<Event>, LogError> {
        Ok(self.read_within(Room::UNLIMITED)?.unwrap_or_default())
    }

    /// The next events that there is room for; `None` where a segment was sealed or dropped since it was listed, so that it
    /// is found by its new name next time.
    pub(crate) fn read_within(&mut self, room: Room) -> Result<Option<Vec<Event>>, LogError> {
        match self.read_on(room) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            events => events.map(Some).map_err(LogError::new("read", &self.dir)),
        }
    }

    /// Goes to the event with this number, if it is not beyond it.
    pub(crate) fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    fn read_on(&mut self, room: Room) -> io::Result<Vec<Event>> {
        for (summary, path) in segment::list(&self.dir)? {
            if !(summary.sealed && summary.next() <= self.next) {
                let events = self.read_segment(&summary, &path, room)?;
                if !events.is_empty() {
                    return Ok(events);
                }
            }
        }
        Ok(Vec::new())
    }

    fn read_segment(&mut self, segment: &Summary, path: &Path, room: Room) -> io::Result<Vec<Event>> {
        let file = File::open(path)?;
        let start = Place { first: segment.first, number: segment.first, offset: 0 };
        let mut place = if self.place.first == segment.first { self.place } else { start };
        let (mut found, mut taken) = (Vec::new(), 0);
        while found.is_empty() {
            let left = file.metadata()?.len().saturating_sub(place.offset);
            let mut bytes = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
            let read = file.read_at(&mut bytes, place.offset)?;
            let from = place;
            for (event, end) in record::events(&bytes[..read]) {
                if place.number >= self.next {
                    taken += event.message.len();
                    if found.len() >= room.events || (taken > room.bytes && !found.is_empty()) {
                        break;
                    }
                    found.push(event.into());
                }
                place.number += 1;
                place.offset = from.offset + end as u64;
            }
            if place == from {
                break;
            }
        }
        self.place = place;
        self.next = self.next.max(place.number);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Line, Stream};

    fn texts(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| std::str::from_utf8(&event.message).unwrap()).collect()
    }

    fn add(stream: &Stream, texts: &[&str]) {
        let line = |text: &&str| Line { timestamp: None, source: 0, message: text.as_bytes().to_vec() };
        stream.append(&texts.iter().map(line).collect::<Vec<_>>(), 1, u64::MAX).unwrap();
    }

    #[test]
    fn a_follower_reads_what_is_added_over_seals_and_drops() {
        let dir = tempfile::tempdir().unwrap();
        let stream = Stream::create(dir.path().join("s"), "s", 1, Arc::default()).unwrap();
        let mut follower = Follower::new(stream.dir(), 0);
        assert_eq!(texts(&follower.read().unwrap()), [""; 0]);
        add(&stream, &["a", "b"]);
        assert_eq!(texts(&follower.read().unwrap()), ["a", "b"]);
        assert_eq!(texts(&follower.read().unwrap()), [""; 0]);
        add(&stream, &["c"]);
        stream.seal().unwrap();
        add(&stream, &["d"]);
        assert_eq!(texts(&follower.read().unwrap()), ["c"]);
        assert_eq!(texts(&follower.read().unwrap()), ["d"]);
        assert_eq!(texts(&Follower::new(stream.dir(), 1).read().unwrap()), ["b", "c"]);
        stream.make_room(2).unwrap();
        let left = Follower::new(stream.dir(), 0).read().unwrap();
        assert!(texts(&left)[0] == "d" && texts(&left)[1].contains("oldest 3 lines"), "{left:?}");
        assert_eq!(follower.read().unwrap(), left[1..]);
    }

    #[test]
    fn nothing_is_read_of_what_is_not_there() {
        let mut follower = Follower::new("/nowhere", 0);
        assert!(!follower.exists() && follower.read().unwrap().is_empty());
    }
}
