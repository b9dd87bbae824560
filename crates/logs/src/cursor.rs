//! How far a reader of a stream has come, kept beside the stream's segments, so that it goes on after a restart and goes
//! with the stream.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::follower::Room;
use crate::{Event, Follower, LogError, Stream, json_file};

/// A reader's place in a stream: after the events that it has done with.
#[derive(Debug, Clone)]
pub struct Cursor {
    file: PathBuf,
    /// When the stream was made.
    created: u64,
    follower: Follower,
}

#[derive(Debug, Serialize, Deserialize)]
struct Place {
    /// When the stream was made that this is about: it may have been written just after another took its directory.
    created: u64,
    /// Number of the event to be read next.
    next: u64,
}

/// What comes next in a stream.
#[derive(Debug)]
pub struct Ahead {
    /// The events, in the order in which they were added.
    pub events: Vec<Event>,
    /// Events before them that were dropped before they were read.
    pub dropped: u64,
    then: Follower,
}

impl Cursor {
    /// Where `reader`, which stands in a file's name, is in this stream: at its oldest event if it has never been there.
    ///
    /// # Errors
    /// [`LogError`] where that cannot be read.
    pub fn open(stream: &Stream, reader: &str) -> Result<Self, LogError> {
        let file = stream.dir().join(format!("{reader}.json"));
        let place: Option<Place> = json_file::read(&file).map_err(LogError::new("read", &file))?;
        let created = stream.created();
        let place = place.filter(|place| place.created == created);
        // Of events that were lost with the power, the numbers are given again.
        let next = place.map_or(0, |place| place.next).min(stream.next());
        Ok(Self { file, created, follower: Follower::new(stream.dir(), next) })
    }

    /// The number of the event that is read next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.follower.next()
    }

    /// The next events, of which there is one at least if there are any; the same again until [`Self::advance`]. `end` is the
    /// number that the stream's next event had before: where nothing is left of what was added until then, it was dropped.
    ///
    /// # Errors
    /// [`LogError`] where they cannot be read.
    pub fn read(&self, room: Room, end: u64) -> Result<Ahead, LogError> {
        let mut then = self.follower.clone();
        let events = match then.read_within(room)? {
            Some(events) if events.is_empty() => {
                then.skip_to(end);
                events
            }
            events => events.unwrap_or_default(),
        };
        let dropped = (then.next() - events.len() as u64).saturating_sub(self.next());
        Ok(Ahead { events, dropped, then })
    }

    /// That these events are done with. Not durable at once, like the events.
    ///
    /// # Errors
    /// [`LogError`]: it is so until the next start.
    pub fn advance(&mut self, ahead: Ahead) -> Result<(), LogError> {
        self.follower = ahead.then;
        match json_file::write(&self.file, &Place { created: self.created, next: self.next() }, false) {
            // The stream is deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(LogError::new("write", &self.file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Line;

    const ALL: Room = Room { events: usize::MAX, bytes: usize::MAX };

    fn stream(dir: &std::path::Path) -> Stream {
        Stream::create(dir.join("s"), "s", 1, Arc::default()).unwrap()
    }

    fn add(stream: &Stream, texts: &[&str]) {
        let line = |text: &&str| Line { timestamp: None, source: 0, message: text.as_bytes().to_vec() };
        stream.append(&texts.iter().map(line).collect::<Vec<_>>(), 1, u64::MAX).unwrap();
    }

    fn read(cursor: &Cursor, stream: &Stream, room: Room) -> Ahead {
        cursor.read(room, stream.next()).unwrap()
    }

    fn texts(ahead: &Ahead) -> Vec<&str> {
        ahead.events.iter().map(|event| std::str::from_utf8(&event.message).unwrap()).collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_was_and_readers_do_not_know_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(dir.path());
        add(&stream, &["a", "b", "c"]);
        let mut cursor = Cursor::open(&stream, "one").unwrap();
        let ahead = read(&cursor, &stream, Room { events: 2, ..ALL });
        assert_eq!(texts(&ahead), ["a", "b"]);
        assert_eq!(texts(&read(&cursor, &stream, ALL)), ["a", "b", "c"], "nothing is done with yet");
        cursor.advance(ahead).unwrap();
        assert_eq!(texts(&read(&cursor, &stream, ALL)), ["c"]);
        assert_eq!(texts(&read(&Cursor::open(&stream, "one").unwrap(), &stream, ALL)), ["c"]);
        assert_eq!(Cursor::open(&stream, "two").unwrap().next(), 0);
    }

    #[test]
    fn what_is_read_at_once_fits_but_for_one_event_that_never_does() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(dir.path());
        add(&stream, &["four", "four", "sixteen letters.", "x"]);
        let mut cursor = Cursor::open(&stream, "one").unwrap();
        let mut pages = Vec::new();
        loop {
            let ahead = read(&cursor, &stream, Room { events: 9, bytes: 8 });
            if ahead.events.is_empty() {
                break;
            }
            pages.push(ahead.events.len());
            cursor.advance(ahead).unwrap();
        }
        assert_eq!(pages, [2, 1, 1]);
    }

    #[test]
    fn what_is_dropped_unread_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(dir.path());
        add(&stream, &["a", "b", "c"]);
        let mut cursor = Cursor::open(&stream, "one").unwrap();
        let ahead = read(&cursor, &stream, Room { events: 1, ..ALL });
        assert_eq!(ahead.dropped, 0);
        cursor.advance(ahead).unwrap();
        stream.make_room(2).unwrap();
        add(&stream, &["d"]);
        let ahead = read(&cursor, &stream, ALL);
        assert_eq!((ahead.dropped, texts(&ahead).pop()), (2, Some("d")));
    }

    #[test]
    fn where_nothing_is_left_all_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(dir.path());
        add(&stream, &["a", "b"]);
        stream.expire(u64::MAX).unwrap();
        assert!(stream.segments().is_empty());
        let mut cursor = Cursor::open(&stream, "one").unwrap();
        let ahead = read(&cursor, &stream, ALL);
        assert_eq!((ahead.dropped, ahead.events.len()), (2, 0));
        cursor.advance(ahead).unwrap();
        assert_eq!(cursor.next(), stream.next());
    }

    #[test]
    fn a_place_beyond_the_end_is_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(dir.path());
        add(&stream, &["a"]);
        json_file::write(&stream.dir().join("one.json"), &Place { created: 1, next: 7 }, false).unwrap();
        let cursor = Cursor::open(&stream, "one").unwrap();
        add(&stream, &["b"]);
        assert_eq!(texts(&read(&cursor, &stream, ALL)), ["b"]);
    }

    #[test]
    fn a_stream_that_is_deleted_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(dir.path());
        add(&stream, &["a"]);
        let mut cursor = Cursor::open(&stream, "one").unwrap();
        let ahead = read(&cursor, &stream, ALL);
        stream.delete().unwrap();
        cursor.advance(ahead).unwrap();
        assert!(read(&cursor, &stream, ALL).events.is_empty());
    }

    #[test]
    fn a_place_in_a_stream_that_was_deleted_is_none_in_the_one_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let before = stream(dir.path());
        add(&before, &["a", "b"]);
        let mut cursor = Cursor::open(&before, "one").unwrap();
        let ahead = read(&cursor, &before, ALL);
        before.delete().unwrap();
        let after = Stream::create(before.dir().to_owned(), "s", 2, Arc::default()).unwrap();
        add(&after, &["c"]);
        cursor.advance(ahead).unwrap();
        assert_eq!(texts(&read(&Cursor::open(&after, "one").unwrap(), &after, ALL)), ["c"]);
    }
}
