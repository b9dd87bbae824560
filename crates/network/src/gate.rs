//! What lets a bound slot's guest resolve names, and reach what it resolved.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::command::CommandError;
use crate::config::{Cidr, NetworkConfig};
use crate::dns::{self, ForwardError};
use crate::egress::{Egress, Family, pin_set};
use crate::names::{self, Admitted, AnswerError, Asked, Matched, Pin};
use crate::nfset::SetWriter;
use crate::pins::{MAX_PINS, Pins};
use crate::routing::{is_this_hosts, speaks_ipv6_with};
use crate::rules::{SLOT_PREFIX, SLOT_TABLE, bound_chain, table_name};
use crate::slot::Slot;
use crate::{ipv6, netns};

/// Why a guest is told that a name could not be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    /// No resolver answered.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// One answered with nothing of use.
    #[error("cannot resolve: {0}")]
    Answer(AnswerError),
    /// It has resolved too much.
    #[error(
        "cannot let a guest reach more than {MAX_PINS} addresses by their names; wait for some to expire"
    )]
    Full,
    /// The kernel did not take an address.
    #[error("cannot let a guest reach what it resolved: {0}")]
    Pin(io::Error),
}

/// One for each slot that is bound. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    egress: Arc<Egress>,
    slots: Cidr,
    min_pin: Duration,
    doors: Arc<Mutex<Doors>>,
}

/// Where addresses are let through: in the slot's ruleset and in the host's.
#[derive(Debug)]
struct Doors {
    pins: Pins,
    rulesets: Vec<Ruleset>,
}

#[derive(Debug)]
struct Ruleset {
    writer: SetWriter,
    /// How the names of its sets for this slot begin.
    prefix: String,
}

impl Gate {
    /// Opens nothing yet. The calling thread is in the host's namespace.
    pub(crate) fn new(config: &NetworkConfig, slot: &Slot, egress: &Egress) -> Result<Self, CommandError> {
        let mut rulesets = Vec::new();
        if !egress.pinned_traffic().is_empty() {
            let failed = |source| CommandError::kernel("open a netlink socket to nf_tables", source);
            let own = netns::inside(&slot.netns, || SetWriter::open(SLOT_TABLE.to_owned()));
            let own = own.and_then(|own| own).map_err(failed)?;
            let host = SetWriter::open(table_name(&config.instance)).map_err(failed)?;
            rulesets.push(Ruleset { writer: host, prefix: bound_chain(slot.index) });
            rulesets.push(Ruleset { writer: own, prefix: SLOT_PREFIX.to_owned() });
        }
        Ok(Self {
            egress: Arc::new(egress.clone()),
            slots: config.slot_cidr,
            min_pin: config.min_pin,
            doors: Arc::new(Mutex::new(Doors { pins: Pins::default(), rulesets })),
        })
    }

    /// The answer to a guest's query. What is in it can be reached once this returns. `None` if this was no query.
    pub(crate) async fn answer(
        &self,
        query: &[u8],
        upstreams: &[SocketAddr],
    ) -> Result<Option<Vec<u8>>, GateError> {
        match self.egress.asked(query) {
            Asked::Anything => Ok(forward(query, upstreams, |to| self.egress.lets_out_to(to)).await?),
            Asked::NoSuchName => Ok(dns::no_such_name(query)),
            Asked::NoData => Ok(dns::no_data(query)),
            Asked::Record => Ok(Some(pass_on(query, upstreams).await?)),
            Asked::Addresses(matched) => {
                let raw = pass_on(query, upstreams).await?;
                match self.admit(query, &raw, &matched) {
                    Ok(admitted) => {
                        self.pin(&admitted).await?;
                        Ok(dns::addresses(query, admitted.ttl, &admitted.addresses))
                    }
                    Err(AnswerError::NoSuchName) => Ok(dns::no_such_name(query)),
                    Err(error) => Err(GateError::Answer(error)),
                }
            }
        }
    }

    fn admit(&self, query: &[u8], answer: &[u8], matched: &[Matched]) -> Result<Admitted, AnswerError> {
        let hidden = |address: IpAddr| {
            self.is_a_slots(address)
                || is_this_hosts(address)
                || address.is_ipv6() && !speaks_ipv6_with(address)
        };
        let admitted = self.egress.admitted(query, answer, matched, hidden)?;
        if admitted.withheld > 0 {
            tracing::debug!(withheld = admitted.withheld, "addresses of a name were kept from a guest");
        }
        Ok(admitted)
    }

    fn is_a_slots(&self, address: IpAddr) -> bool {
        let own = match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => ipv6::counterpart(v6),
        };
        own.is_some_and(|own| self.slots.contains(own))
    }

    async fn pin(&self, admitted: &Admitted) -> Result<(), GateError> {
        if admitted.pins.is_empty() {
            return Ok(());
        }
        let life = Duration::from_secs(admitted.ttl.into()).max(self.min_pin);
        let (doors, pins) = (Arc::clone(&self.doors), admitted.pins.clone());
        // The kernel takes them at once, but for a moment in which it may change a ruleset.
        let pinned = tokio::task::spawn_blocking(move || {
            doors.lock().unwrap_or_else(PoisonError::into_inner).pin(&pins, life)
        });
        pinned.await.unwrap_or_else(|panic| Err(GateError::Pin(io::Error::other(panic))))
    }
}

impl Doors {
    fn pin(&mut self, pins: &[Pin], life: Duration) -> Result<(), GateError> {
        let noted = self.pins.note(pins, Instant::now(), life).ok_or(GateError::Full)?;
        for Ruleset { writer, prefix } in &mut self.rulesets {
            let mut sets: BTreeMap<String, Vec<_>> = BTreeMap::new();
            for ((set, address), left) in &noted {
                let set = pin_set(prefix, *set, Family::of(*address));
                sets.entry(set).or_default().push((*address, *left));
            }
            writer.put(&sets).map_err(GateError::Pin)?;
        }
        Ok(())
    }
}

/// Resolvers hear of a guest's question and of nothing else in its query.
async fn pass_on(query: &[u8], upstreams: &[SocketAddr]) -> Result<Vec<u8>, ForwardError> {
    let own = dns::only_the_question(query).ok_or(ForwardError::Query(query.len()))?;
    dns::forward(&own, upstreams).await
}

/// The answer of the resolvers to a guest whose names are free: IPv6 addresses are kept from it where neither the host nor
/// what lets it out leads to any of them. `None` if this was no query.
pub(crate) async fn forward(
    query: &[u8],
    upstreams: &[SocketAddr],
    is_let_out: impl Fn(IpAddr) -> bool,
) -> Result<Option<Vec<u8>>, ForwardError> {
    let answer = dns::forward(query, upstreams).await?;
    let misleads = names::misleads(query, &answer, |to| is_let_out(to) && speaks_ipv6_with(to));
    Ok(if misleads { dns::no_data(query) } else { Some(answer) })
}
