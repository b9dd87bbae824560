//! Pages of events, in the order of their timestamps, out of one stream or many.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::record::{self, Event, Raw};
use crate::segment::Summary;
use crate::{LogError, Stream, json_file};

/// An event's place: events are ordered by timestamp, then as they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// When it happened.
    pub timestamp: u64,
    /// When it was added.
    pub ingested: u64,
    /// Stands for the stream's name.
    pub stream: u64,
    /// Its number in the stream.
    pub number: u64,
}

/// Which way a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// From the oldest event on.
    Newer,
    /// From the newest event back.
    Older,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// Which way.
    pub toward: Toward,
    /// The event after which the page begins, which is not part of it.
    pub after: Option<Key>,
    /// Least timestamp.
    pub oldest: u64,
    /// Greatest timestamp.
    pub newest: u64,
    /// Most events.
    pub limit: usize,
    /// Most bytes of messages, though one event is always there.
    pub bytes: usize,
    /// Which messages.
    pub matches: &'a (dyn Fn(&[u8]) -> bool + Sync),
}

impl std::fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search")
            .field("toward", &self.toward)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl Search<'_> {
    /// Everything, from the oldest on.
    #[must_use]
    pub fn all() -> Self {
        let (limit, bytes) = (usize::MAX, usize::MAX);
        Self {
            toward: Toward::Newer,
            after: None,
            oldest: 0,
            newest: u64::MAX,
            limit,
            bytes,
            matches: &|_| true,
        }
    }

    fn wants(&self, key: Key) -> bool {
        let ahead = self.after.is_none_or(|after| self.rank(key) > self.rank(after));
        (self.oldest..=self.newest).contains(&key.timestamp) && ahead
    }

    /// A key whose order is the search's.
    fn rank(&self, key: Key) -> Key {
        match self.toward {
            Toward::Newer => key,
            Toward::Older => Key {
                timestamp: !key.timestamp,
                ingested: !key.ingested,
                stream: !key.stream,
                number: !key.number,
            },
        }
    }
}

/// One event found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where the stream is among those that were searched.
    pub stream: usize,
    /// Its place.
    pub key: Key,
    /// The event.
    pub event: Event,
}

/// A page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of the search.
    pub events: Vec<Found>,
    /// Whether there are more.
    pub more: bool,
}

/// The next page of what these streams have.
///
/// # Errors
/// [`LogError`] where a segment cannot be read.
pub fn search(streams: &[Arc<Stream>], search: &Search<'_>) -> Result<Page, LogError> {
    let names: Vec<u64> = streams.iter().map(|stream| number_of(stream.name())).collect();
    let mut segments: Vec<(usize, Summary)> = Vec::new();
    for (index, stream) in streams.iter().enumerate() {
        let overlaps = |segment: &Summary| segment.oldest <= search.newest && segment.newest >= search.oldest;
        segments.extend(stream.segments().into_iter().filter(overlaps).map(|segment| (index, segment)));
    }
    // Nearest first, so that the others are not read once the page is full.
    segments.sort_by_key(|(_, segment)| match search.toward {
        Toward::Newer => segment.oldest,
        Toward::Older => !segment.newest,
    });
    let mut page = Nearest { search, found: BTreeMap::new(), bytes: 0, cut: None };
    for (index, segment) in segments {
        if !page.may_have(&segment) {
            continue;
        }
        let bytes = streams[index].read(&segment)?;
        for (number, (event, _)) in (segment.first..).zip(record::events(&bytes)) {
            let Raw { timestamp, ingested, .. } = event;
            page.offer(index, Key { timestamp, ingested, stream: names[index], number }, event);
        }
    }
    Ok(Page { more: page.cut.is_some(), events: page.found.into_values().collect() })
}

/// Stands for a stream's name in keys.
fn number_of(name: &str) -> u64 {
    let hash = json_file::hashed(name);
    u64::from_str_radix(hash.get(..16).unwrap_or_default(), 16).unwrap_or_default()
}

/// The events nearest to where the search begins.
struct Nearest<'a> {
    search: &'a Search<'a>,
    /// By rank.
    found: BTreeMap<Key, Found>,
    bytes: usize,
    /// Rank of the nearest event that found no place: what is farther has none either.
    cut: Option<Key>,
}

impl Nearest<'_> {
    /// Whether a segment has anything between the beginning and the cut.
    fn may_have(&self, segment: &Summary) -> bool {
        let (nearest, farthest) = match self.search.toward {
            Toward::Newer => (segment.oldest, segment.newest),
            Toward::Older => (!segment.newest, !segment.oldest),
        };
        self.cut.is_none_or(|cut| nearest <= cut.timestamp)
            && self.search.after.is_none_or(|after| farthest >= self.search.rank(after).timestamp)
    }

    fn offer(&mut self, stream: usize, key: Key, event: Raw<'_>) {
        let rank = self.search.rank(key);
        let fits = self.search.wants(key) && self.cut.is_none_or(|cut| rank < cut);
        if !fits || !(self.search.matches)(event.message) {
            return;
        }
        self.bytes += event.message.len();
        self.found.insert(rank, Found { stream, key, event: event.into() });
        while self.found.len() > self.search.limit || (self.bytes > self.search.bytes && self.found.len() > 1)
        {
            let Some((rank, farthest)) = self.found.pop_last() else { return };
            self.bytes -= farthest.event.message.len();
            self.cut = Some(rank);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::Line;

    fn filled(dir: &std::path::Path, name: &str, timestamps: &[u64], sealing: usize) -> Arc<Stream> {
        let stream = Stream::create(dir.join(name), name, 0, Arc::default()).unwrap();
        for (at, timestamp) in timestamps.iter().enumerate() {
            let message = format!("{name}{at}").into_bytes();
            let line = Line { timestamp: Some(*timestamp), source: 0, message };
            stream.append(&[line], at as u64, u64::MAX).unwrap();
            if sealing > 0 && at % sealing == 0 {
                stream.seal().unwrap();
            }
        }
        Arc::new(stream)
    }

    fn keys(page: &Page) -> Vec<Key> {
        page.events.iter().map(|found| found.key).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn pages_are_the_whole_in_order_either_way(
            one in prop::collection::vec(0u64..50, 0..40),
            two in prop::collection::vec(0u64..50, 0..40),
            (oldest, newest) in (0u64..50, 0u64..50),
            (limit, bytes, sealing) in (1usize..9, 1usize..20, 0usize..6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let streams = [filled(dir.path(), "a", &one, sealing), filled(dir.path(), "b", &two, sealing)];
            let whole = search(&streams, &Search { oldest, newest, ..Search::all() }).unwrap();
            let wanted = one.iter().chain(&two).filter(|at| (oldest..=newest).contains(*at)).count();
            prop_assert!(whole.events.len() == wanted && keys(&whole).is_sorted() && !whole.more);
            for toward in [Toward::Newer, Toward::Older] {
                let (mut after, mut all) = (None, Vec::new());
                loop {
                    let next = Search { toward, after, oldest, newest, limit, bytes, ..Search::all() };
                    let page = search(&streams, &next).unwrap();
                    prop_assert!(page.events.len() <= limit);
                    all.extend(page.events);
                    after = all.last().map(|found| found.key);
                    if !page.more {
                        break;
                    }
                }
                if toward == Toward::Older {
                    all.reverse();
                }
                prop_assert_eq!(&all, &whole.events);
            }
        }
    }

    #[test]
    fn only_what_matches_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let stream = filled(dir.path(), "a", &[1, 2, 3], 0);
        let page = search(&[stream], &Search { matches: &|text| text == b"a1", ..Search::all() }).unwrap();
        assert_eq!(page.events.len(), 1);
        assert_eq!((page.events[0].event.timestamp, page.events[0].key.number), (2, 1));
    }
}
