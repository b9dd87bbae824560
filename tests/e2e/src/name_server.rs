//! Somebody who serves names: a thread of this process.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, RCODE, ResourceRecord};

/// In seconds.
const TTL: u32 = 1;
/// More than a query has.
const BUFFER: usize = 4096;

/// A name server with a few names, and no others.
#[derive(Debug)]
pub struct NameServer {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// Answers for as long as this process lives.
    ///
    /// # Panics
    /// Where it cannot listen, or an address is none.
    #[must_use]
    pub fn start(names: &[(&str, &str)]) -> Self {
        let zone: BTreeMap<String, Ipv4Addr> =
            names.iter().map(|(name, address)| ((*name).to_owned(), address.parse().unwrap())).collect();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Self { address: socket.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&server.asked);
        std::thread::spawn(move || {
            let mut buffer = [0; BUFFER];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let query = Packet::parse(&buffer[..length]).unwrap();
                let name = query.questions[0].qname.to_string();
                let answer = answer(&query, zone.get(&name).copied());
                asked.lock().unwrap().push(name);
                socket.send_to(&answer, client).unwrap();
            }
        });
        server
    }

    /// Whether anybody has asked it for this name.
    ///
    /// # Panics
    /// Where it has failed.
    #[must_use]
    pub fn was_asked(&self, name: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|asked| asked == name)
    }
}

fn answer(query: &Packet<'_>, address: Option<Ipv4Addr>) -> Vec<u8> {
    let mut answer = query.clone().into_reply();
    match address {
        Some(address) => {
            let data = RData::A(A { address: address.into() });
            answer.answers.push(ResourceRecord::new(query.questions[0].qname.clone(), CLASS::IN, TTL, data));
        }
        None => *answer.rcode_mut() = RCODE::NameError,
    }
    answer.build_bytes_vec_compressed().unwrap()
}
