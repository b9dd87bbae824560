//! How many connections each client has, so that none takes the places of all others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An IPv6 client has a network of its own, of these bits, and any address in it.
const IPV6_CLIENT: u128 = u128::MAX << 64;

/// The connections of every client that has some.
#[derive(Debug)]
pub(crate) struct Clients {
    limit: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Clients {
    /// Each may have `limit` connections.
    pub(crate) fn each_with(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    /// A place for one more connection, until it is dropped; `None` where the client has as many as it may.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = client(address);
        let mut open = self.open();
        let count = open.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place { clients: Arc::clone(self), client })
    }

    /// A panic while the lock was held cannot leave a count half changed.
    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & IPV6_CLIENT).into(),
        v4 => v4,
    }
}

/// One connection of a client; counted until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.clients.open();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_does_not_take_the_places_of_others() {
        let clients = Clients::each_with(2);
        let admit = |address: &str| clients.admit(address.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        // The same, as a listener for both versions sees it.
        let _second = admit("::ffff:192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        let other = admit("192.0.2.2").unwrap();
        drop(first);
        assert!(admit("192.0.2.1").is_some());
        let _network = (admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap());
        assert!(admit("2001:db8::3").is_none() && admit("2001:db8:0:1::3").is_some());
        drop(other);
        assert_eq!(clients.open().len(), 2, "nothing is kept of clients without connections");
    }
}
