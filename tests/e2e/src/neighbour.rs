//! Somebody else on the network: a namespace linked to the host, in which a thread of this process listens.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command;

/// The port that it listens on.
pub const PORT: u16 = 7007;
const CONNECT: Duration = Duration::from_secs(2);

/// A host that is reached through this one; gone when dropped.
#[derive(Debug)]
pub struct Neighbour {
    name: String,
    /// Its address.
    pub address: String,
}

impl Neighbour {
    /// On a network of its own, the first three numbers of whose addresses are `network`. Its name, which must be
    /// unique, names the link too.
    ///
    /// # Panics
    /// Where it cannot be made, as without root.
    #[must_use]
    pub fn new(name: &str, network: &str) -> Self {
        let name = format!("rke2e-{name}");
        // What a run that was killed left is in the way of this one.
        command::run(Command::new("ip").args(["netns", "delete", &name]));
        let neighbour = Self { address: format!("{network}.2"), name: name.clone() };
        let gateway = format!("{network}.1");
        let (host_side, own_side) = (format!("{gateway}/24"), format!("{}/24", neighbour.address));
        let inside = ["-n", &name];
        for arguments in [
            &["netns", "add", &name][..],
            &["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name],
            &["address", "add", &host_side, "dev", &name],
            &["link", "set", &name, "up"],
            &[&inside[..], &["address", "add", &own_side, "dev", "eth0"]].concat(),
            &[&inside[..], &["link", "set", "eth0", "up"]].concat(),
            &[&inside[..], &["route", "add", "default", "via", &gateway]].concat(),
        ] {
            command::must(Command::new("ip").args(arguments));
        }
        neighbour.listen();
        assert!(neighbour.reached_from_here(), "this host does not reach {}", neighbour.address);
        neighbour
    }

    /// Its address on an IPv6 network as well, the first 64 bits of whose addresses are `network`, such as `2e00:1:`. There it
    /// sends datagrams back too.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn by_ipv6(&self, network: &str) -> String {
        let [gateway, address] = [1, 2].map(|last| format!("{network}:{last}"));
        let (host_side, own_side) = (format!("{gateway}/64"), format!("{address}/64"));
        let inside = ["-n", &self.name];
        for arguments in [
            &["address", "add", &host_side, "dev", &self.name, "nodad"][..],
            &[&inside[..], &["address", "add", &own_side, "dev", "eth0", "nodad"]].concat(),
            &[&inside[..], &["route", "add", "::/0", "via", &gateway]].concat(),
        ] {
            command::must(Command::new("ip").args(arguments));
        }
        let at = address.clone();
        let (listener, datagrams) = self.inside(move || {
            (TcpListener::bind((&*at, PORT)).unwrap(), UdpSocket::bind((&*at, PORT)).unwrap())
        });
        std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = datagrams.recv_from(&mut buffer) {
                // Whoever does not want it any more is no matter.
                let _ = datagrams.send_to(&buffer[..length], client);
            }
        });
        address
    }

    /// The path of its namespace.
    #[must_use]
    pub fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Keeps every caller for as long as this process lives; the namespace's name may go before.
    fn listen(&self) {
        let listener = self.inside(|| TcpListener::bind(("0.0.0.0", PORT)).unwrap());
        std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    }

    fn inside<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(self.namespace()).unwrap();
        let make = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            make()
        };
        std::thread::spawn(make).join().unwrap()
    }

    fn reached_from_here(&self) -> bool {
        let address = SocketAddr::new(self.address.parse().unwrap(), PORT);
        TcpStream::connect_timeout(&address, CONNECT).is_ok()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // The link goes at once; a namespace takes its end with it only some time after it is deleted.
        command::run(Command::new("ip").args(["link", "delete", &self.name]));
        command::run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_reached_and_leaves_nothing() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let links = || command::must(Command::new("ip").args(["-o", "link", "show"]));
        let neighbour = Neighbour::new("unit", "198.51.102");
        assert!(neighbour.reached_from_here() && links().contains(&neighbour.name));
        let name = neighbour.name.clone();
        drop(neighbour);
        assert!(!links().contains(&name));
        assert!(!Path::new("/run/netns").join(name).exists());
    }
}
