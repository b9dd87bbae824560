//! The pool and the cgroups on a real kernel, as root. A namespace made for the test plays the host, so that
//! nothing of the real host's network changes; others play the internet, a private network and the guests.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rekindle_network::cgroup::{Cgroups, Limits};
use rekindle_network::egress::{Allowed, Destination, Routes, Target, Traffic, Way};
use rekindle_network::endpoint::{self, Endpoint};
use rekindle_network::{
    AcquireError, AdoptError, Egress, GUEST_MAC, InstanceTag, NetworkConfig, OpenError, Pool, RefusedTo,
    Resolver, Slot, check_rules, remove_instance,
};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Long enough for a TCP handshake between namespaces, short enough to wait for what never comes.
const CONNECT: Duration = Duration::from_millis(700);
const FIRST_UID: u32 = 4242;
const PORT: u16 = 8080;
const OTHER_PORT: u16 = 8081;
/// Where what is sent comes back.
const ECHO_PORT: u16 = 8082;
const GATEWAY_V6: &str = "fd72:656b:696e::a9fe:4d01";
const GUEST_V6: &str = "fd72:656b:696e::a9fe:4d02";
/// For what comes with time.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs the test on a thread whose namespace plays the host. Namespaces have names outside of it too, so those
/// of a test which fails are removed here.
fn as_host(name: &'static str, test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let thread = std::thread::spawn(|| {
        // SAFETY: only the network namespace of this thread changes; no memory or descriptor is shared through it.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        run("ip", "link set lo up\n", &["-batch", "-"]);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        let removed = remove_instance(&tag(name));
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        removed.unwrap();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(program: &str, script: &str, args: &[&str]) -> String {
    let mut child =
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {script}");
    String::from_utf8(output.stdout).unwrap()
}

fn tag(test: &str) -> InstanceTag {
    InstanceTag::of_data_dir(&PathBuf::from(format!("{test} {}", std::process::id())))
}

fn config(test: &str) -> NetworkConfig {
    NetworkConfig { ready: 2, ..NetworkConfig::new(tag(test), FIRST_UID) }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        let enter = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        scope.spawn(enter).join().unwrap()
    })
}

/// Listens and greets every caller, for as long as the test process lives. `::` is every address, of IPv4 too.
fn greet(address: &str) {
    for port in [PORT, OTHER_PORT] {
        let listener = TcpListener::bind((address, port)).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
    let listener = TcpListener::bind((address, ECHO_PORT)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let socket = UdpSocket::bind((address, ECHO_PORT)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            // Whoever does not want it any more is no matter.
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
}

fn echoes(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(CONNECT)).unwrap();
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

/// Whether a datagram of so many bytes comes back.
fn datagram_echoes(address: &str, bytes: usize) -> std::io::Result<bool> {
    let socket = UdpSocket::bind("[::]:0").unwrap();
    socket.set_read_timeout(Some(CONNECT)).unwrap();
    socket.connect((address, ECHO_PORT))?;
    let sent = vec![7; bytes];
    socket.send(&sent)?;
    let mut buffer = [0; 2048];
    socket.recv(&mut buffer).map(|length| buffer[..length] == sent)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

fn reaches(address: &str) -> bool {
    reaches_port(address, PORT)
}

fn reaches_port(address: &str, port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(address.parse().unwrap(), port), CONNECT).is_ok()
}

fn routes(to: &[&str]) -> Routes {
    let mut routes = Routes::default();
    to.iter().for_each(|route| routes.add(route.parse().unwrap()).unwrap());
    routes
}

/// For the addresses of a name.
fn dns_query(name: &str) -> Vec<u8> {
    dns_query_for(name, TYPE::A)
}

fn dns_query_for(name: &str, kind: TYPE) -> Vec<u8> {
    let mut query = Packet::new_query(0xabcd);
    let question = simple_dns::Question::new(Name::new(name).unwrap(), kind.into(), CLASS::IN.into(), false);
    query.questions.push(question);
    query.build_bytes_vec().unwrap()
}

/// What a zone has for a name.
#[derive(Clone)]
enum Has {
    Alias(&'static str),
    Addresses(Vec<IpAddr>),
}

fn at(addresses: &[&str]) -> Has {
    Has::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

/// A name server with a zone of its own, which answers aliases with what is behind them and notes what it was asked.
struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// In seconds: shorter than any pin.
    const TTL: u32 = 1;

    fn start(zone: BTreeMap<String, Has>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = Self { address: socket.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&server.asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let query = Packet::parse(&buffer[..length]).unwrap();
                asked.lock().unwrap().push(query.questions[0].qname.to_string());
                socket.send_to(&Self::answer(&zone, &query), client).unwrap();
            }
        });
        server
    }

    fn answer(zone: &BTreeMap<String, Has>, query: &Packet<'_>) -> Vec<u8> {
        let mut answer = query.clone().into_reply();
        let mut name = query.questions[0].qname.to_string().to_ascii_lowercase();
        let record = |name: &str, data| {
            ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, Self::TTL, data).into_owned()
        };
        loop {
            match zone.get(&name) {
                None => *answer.rcode_mut() = RCODE::NameError,
                Some(Has::Alias(target)) => {
                    answer.answers.push(record(&name, RData::CNAME(CNAME(Name::new(target).unwrap()))));
                    name = (*target).to_owned();
                    continue;
                }
                Some(Has::Addresses(addresses)) => {
                    let asked = query.questions[0].qtype;
                    let found = addresses.iter().filter_map(|address| match address {
                        IpAddr::V4(v4) if asked == QTYPE::TYPE(TYPE::A) => {
                            Some(RData::A(A { address: (*v4).into() }))
                        }
                        IpAddr::V6(v6) if asked == QTYPE::TYPE(TYPE::AAAA) => {
                            Some(RData::AAAA(AAAA { address: (*v6).into() }))
                        }
                        _ => None,
                    });
                    answer.answers.extend(found.map(|data| record(&name, data)));
                }
            }
            return answer.build_bytes_vec_compressed().unwrap();
        }
    }

    fn resolver(&self, pool: &Pool, slot: &Slot) -> Resolver {
        pool.resolver(slot, [self.address].into())
    }
}

/// What the guest's resolver says: the code, and the addresses.
fn resolve(resolver: &Resolver, name: &str) -> (RCODE, Vec<String>) {
    resolve_for(resolver, name, TYPE::A)
}

fn resolve_for(resolver: &Resolver, name: &str, kind: TYPE) -> (RCODE, Vec<String>) {
    let answer = block_on(resolver.answer(&dns_query_for(name, kind))).unwrap();
    let packet = Packet::parse(&answer).unwrap();
    let addresses = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::A(a) if record.name == packet.questions[0].qname => {
            Some(Ipv4Addr::from(a.address).to_string())
        }
        RData::AAAA(aaaa) if record.name == packet.questions[0].qname => {
            Some(Ipv6Addr::from(aaaa.address).to_string())
        }
        _ => None,
    });
    (packet.rcode(), addresses.collect())
}

fn rule(domain: &str, port: u16) -> Allowed {
    let traffic = Traffic::Tcp(port.to_string().parse().unwrap());
    Allowed { to: Target::Domain(domain.parse().unwrap()), traffic }
}

/// A namespace deleted with the test.
struct Namespace {
    name: String,
}

impl Namespace {
    /// Linked to the host, which has `host` on its side, and listening on `address`.
    fn server(name: String, host: &str, address: &str) -> Self {
        let link = &name[..name.len().min(15)];
        let script = format!(
            "netns add {name}\nlink add {link} type veth peer name eth0 netns {name}\n\
             address add {host}/24 dev {link}\nlink set {link} up\n"
        );
        run("ip", &script, &["-batch", "-"]);
        let script = format!(
            "link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {host}\n"
        );
        run("ip", &script, &["-n", &name, "-batch", "-"]);
        let namespace = Self { name };
        inside(&namespace.path(), || greet(address));
        namespace
    }

    /// Linked to the host by IPv6 too, which has `host` on its side, and listening on `address`.
    fn by_ipv6(self, host: &str, address: &str) -> Self {
        let link = &self.name[..self.name.len().min(15)];
        run("ip", &format!("address add {host}/64 dev {link} nodad\n"), &["-batch", "-"]);
        let script = format!("address add {address}/64 dev eth0 nodad\nroute add ::/0 via {host}\n");
        run("ip", &script, &["-n", &self.name, "-batch", "-"]);
        inside(&self.path(), || greet(address));
        self
    }

    /// A guest on the slot: the tap is replaced by a link of the same name to a namespace with the guest's addresses, whose
    /// ends know each other as a slot and its guest do.
    fn guest(slot: &Slot) -> Self {
        let name = format!("g{}", slot.name);
        let gateway_mac = mac_of_tap(slot);
        let script = format!(
            "link delete tap0\n\
             link add tap0 address {gateway_mac} type veth peer name eth0 address {GUEST_MAC} netns {name}\n\
             link set tap0 addrgenmode none\naddress add 169.254.77.1/30 dev tap0\nlink set tap0 up\n\
             address add {GATEWAY_V6} dev tap0 nodad\n\
             neighbour add {GUEST_V6} lladdr {GUEST_MAC} dev tap0 nud permanent\nroute add {GUEST_V6} dev tap0\n"
        );
        run("ip", &format!("netns add {name}\n"), &["-batch", "-"]);
        run("ip", &script, &["-n", &slot.name, "-batch", "-"]);
        let script = format!(
            "link set lo up\nlink set eth0 addrgenmode none\naddress add 169.254.77.2/30 dev eth0\n\
             link set eth0 up\nroute add default via 169.254.77.1\naddress add {GUEST_V6} dev eth0 nodad\n\
             neighbour add {GATEWAY_V6} lladdr {gateway_mac} dev eth0 nud permanent\n\
             route add ::/0 via {GATEWAY_V6} dev eth0 onlink\n"
        );
        run("ip", &script, &["-n", &name, "-batch", "-"]);
        let namespace = Self { name };
        inside(&namespace.path(), || greet("::"));
        namespace
    }

    /// More of its addresses.
    fn greets_at(&self, addresses: &[&str]) {
        inside(&self.path(), || {
            for address in addresses {
                run("ip", &format!("address add {address}/24 dev eth0\n"), &["-batch", "-"]);
                greet(address);
            }
        });
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run("ip", &format!("netns delete {}\n", self.name), &["-batch", "-"]);
    }
}

#[test]
fn a_guest_reaches_public_addresses_and_nothing_else() {
    as_host("policy", || {
        let tag = tag("policy");
        let pool = Pool::open(config("policy")).unwrap();
        let first = block_on(pool.acquire()).unwrap();
        let second = block_on(pool.acquire()).unwrap();
        let _internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2");
        let _private = Namespace::server(format!("p{tag}"), "192.168.7.1", "192.168.7.2");
        greet("0.0.0.0");
        let guest = Namespace::guest(&first);
        let _neighbour = Namespace::guest(&second);

        // Everything is there for the host to reach, so that a guest's failure to means something.
        for address in ["203.0.113.2", "192.168.7.2", "127.0.0.1", "203.0.113.1"] {
            assert!(reaches(address), "the host does not reach {address}");
        }
        inside(&guest.path(), || {
            assert!(reaches("203.0.113.2"), "the internet");
            let host = ["127.0.0.1", "203.0.113.1", "192.168.7.1", "100.72.0.1", "100.72.0.5"];
            // The guest's own loopback greets too; the host's has no address it could be told apart by.
            for address in
                host.iter().skip(1).chain(&["192.168.7.2", "100.72.0.2", "100.72.0.6", "169.254.77.1"])
            {
                assert!(!reaches(address), "the guest reaches {address}");
            }
        });
        // Nobody opens connections to a guest, its host included, even knowing the way.
        run("ip", "route add 169.254.77.0/30 via 100.72.0.2\n", &["-batch", "-"]);
        assert!(!reaches("169.254.77.2"));

        drop(guest);
        pool.release(first);
        pool.release(second);
        block_on(pool.close());
    });
}

#[test]
fn each_ruleset_holds_without_the_other() {
    as_host("layers", || {
        let tag = tag("layers");
        let pool = Pool::open(config("layers")).unwrap();
        let first = block_on(pool.acquire()).unwrap();
        let second = block_on(pool.acquire()).unwrap();
        let _internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2");
        let _private = Namespace::server(format!("p{tag}"), "192.168.7.1", "192.168.7.2");
        greet("0.0.0.0");
        // A VMM which took over its namespace: no rules there, and listening in the neighbour's too.
        for slot in [&first, &second] {
            inside(&slot.netns, || run("nft", "flush ruleset\n", &["-f", "-"]));
        }
        inside(&second.netns, || {
            run("ip", "link set lo up\n", &["-batch", "-"]);
            greet("0.0.0.0");
            assert!(reaches("100.72.0.6"), "the neighbour greets");
        });
        let attempts =
            ["192.168.7.2", "203.0.113.1", "192.168.7.1", "100.72.0.1", "100.72.0.5", "100.72.0.6"];
        inside(&first.netns, || {
            assert!(reaches("203.0.113.2"), "the internet");
            for address in attempts {
                assert!(!reaches(address), "past the host's rules: {address}");
            }
        });
        // And a slot's own rules suffice for what is behind the host.
        let third = block_on(pool.acquire()).unwrap();
        let guest = Namespace::guest(&third);
        run(
            "nft",
            &format!(
                "flush chain inet rekindle_{tag} forward\nflush chain inet rekindle_{tag} early\nflush chain inet rekindle_{tag} input\n"
            ),
            &["-f", "-"],
        );
        // With neither ruleset all of it is reached: it was the rules that kept the slot from it.
        inside(&first.netns, || {
            for address in attempts {
                assert!(reaches(address), "without any rules: {address}");
            }
        });
        inside(&guest.path(), || {
            assert!(reaches("203.0.113.2") && reaches("203.0.113.1"), "public addresses");
            for address in ["192.168.7.2", "192.168.7.1", "100.72.0.1", "100.72.0.6", "169.254.77.1"] {
                assert!(!reaches(address), "past the slot's rules: {address}");
            }
        });
        // A false sender address would get through, and its answers back, if the slot did not drop it.
        let route = "route add 198.51.100.9 via 169.254.77.2\n";
        run("ip", route, &["-n", &third.name, "-batch", "-"]);
        inside(&guest.path(), || {
            let lie = "address add 198.51.100.9/32 dev lo\nroute replace default via 169.254.77.1 src 198.51.100.9\n";
            run("ip", lie, &["-batch", "-"]);
            assert!(!reaches("203.0.113.2"), "a false sender address passes");
        });
        inside(&third.netns, || run("nft", "flush chain inet rekindle early\n", &["-f", "-"]));
        inside(&guest.path(), || assert!(reaches("203.0.113.2"), "without the rule"));
        drop(guest);
        [first, second, third].into_iter().for_each(|slot| pool.release(slot));
        block_on(pool.close());
    });
}

#[test]
fn a_bound_slot_reaches_what_it_is_bound_to_and_nothing_else() {
    as_host("bound", || {
        let tag = tag("bound");
        let pool = Pool::open(config("bound")).unwrap();
        let (first, second) = (block_on(pool.acquire()).unwrap(), block_on(pool.acquire()).unwrap());
        let _internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2");
        let _listed = Namespace::server(format!("l{tag}"), "10.1.7.1", "10.1.7.2");
        let _private = Namespace::server(format!("p{tag}"), "192.168.7.1", "192.168.7.2");
        greet("0.0.0.0");
        let guest = Namespace::guest(&first);
        let neighbour = Namespace::guest(&second);
        let everything = ["203.0.113.2", "10.1.7.2", "192.168.7.2", "10.1.7.1", "100.72.0.5", "100.72.0.6"];
        let reached = |guest: &Namespace| -> Vec<&str> {
            inside(&guest.path(), || everything.into_iter().filter(|address| reaches(address)).collect())
        };

        let way = Way { routes: routes(&["10.1.0.0/16", "10.1.7.0/24"]), allowed: None };
        block_on(pool.bind(&first, Egress { ways: vec![way.clone()] })).unwrap();
        assert_eq!(reached(&guest), ["10.1.7.2"], "the route, and neither the internet nor the host");
        assert_eq!(reached(&neighbour), ["203.0.113.2"], "a route is for the slot that has it");

        // Another binding takes its place: only some traffic now, and the internet beside it.
        let traffic = Traffic::Tcp(PORT.to_string().parse().unwrap());
        let group = vec![Allowed { to: "10.1.7.0/24".parse::<Destination>().unwrap().into(), traffic }];
        let ways = vec![
            Way { allowed: Some(group), ..way.clone() },
            Way { routes: routes(&["192.168.0.0/16"]), allowed: Some(vec![]) },
            Way { routes: Routes::internet(), allowed: None },
        ];
        block_on(pool.bind(&first, Egress { ways: ways.clone() })).unwrap();
        assert_eq!(reached(&guest), ["203.0.113.2", "10.1.7.2"]);
        inside(&guest.path(), || assert!(!reaches_port("10.1.7.2", OTHER_PORT), "past the group"));
        inside(&neighbour.path(), || assert!(reaches_port("203.0.113.2", OTHER_PORT), "it is there"));

        // Each ruleset holds without the other: the host's against a VMM that took over its namespace...
        inside(&first.netns, || run("nft", "flush ruleset\n", &["-f", "-"]));
        inside(&first.netns, || {
            let reached: Vec<&str> = everything.into_iter().filter(|address| reaches(address)).collect();
            assert_eq!(reached, ["203.0.113.2", "10.1.7.2"]);
            assert!(!reaches_port("10.1.7.2", OTHER_PORT), "past the host's rules");
        });
        // ...and the slot's own, with the host's gone.
        block_on(pool.bind(&first, Egress { ways })).unwrap();
        let chains = ["forward", "early", "input"];
        let flush = chains.map(|chain| format!("flush chain inet rekindle_{tag} {chain}\n"));
        run("nft", &flush.concat(), &["-f", "-"]);
        inside(&guest.path(), || {
            assert!(reaches("10.1.7.2") && reaches("203.0.113.2"), "what it is bound to");
            assert!(
                !reaches_port("10.1.7.2", OTHER_PORT) && !reaches("192.168.7.2"),
                "past the slot's rules"
            );
        });

        // A slot given back leaves nothing that the next one under its name would find.
        drop(guest);
        drop(neighbour);
        let index = first.index;
        pool.release(first);
        pool.release(second);
        block_on(pool.reap(BTreeSet::new())).unwrap();
        let table = run("nft", "", &["list", "table", "inet", &format!("rekindle_{tag}")]);
        assert!(!table.contains(&format!("slot{index}")), "{table}");
        block_on(pool.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

#[test]
fn what_a_binding_refuses_is_counted_by_destination() {
    as_host("refused", || {
        let tag = tag("refused");
        let pool = Pool::open(config("refused")).unwrap();
        let slot = block_on(pool.acquire()).unwrap();
        let _listed = Namespace::server(format!("l{tag}"), "10.1.7.1", "10.1.7.2");
        let guest = Namespace::guest(&slot);
        assert_eq!(pool.refused(&slot.name).unwrap(), None, "it is bound to nothing");

        let traffic = Traffic::Tcp(PORT.to_string().parse().unwrap());
        let allowed = Allowed { to: "10.1.7.2/32".parse::<Destination>().unwrap().into(), traffic };
        let way = Way { routes: routes(&["10.1.7.0/24"]), allowed: Some(vec![allowed]) };
        block_on(pool.bind(&slot, Egress { ways: vec![way] })).unwrap();
        inside(&guest.path(), || {
            assert!(reaches("10.1.7.2") && !reaches_port("10.1.7.2", OTHER_PORT));
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..5 {
                socket.send_to(b"x", "203.0.113.9:53").unwrap();
            }
            UdpSocket::bind("[::]:0").unwrap().send_to(b"x", "[2e00:1::9]:53").unwrap();
        });
        let refused = pool.refused(&slot.name).unwrap().unwrap();
        let to = |address: &str, port: u16| {
            let is_to = |told: &&RefusedTo| told.address.to_string() == address && told.port == port;
            refused.told.iter().find(is_to).map(|told| (told.is_tcp, told.packets))
        };
        assert_eq!(to("203.0.113.9", 53), Some((false, 5)), "{refused:?}");
        assert_eq!(to("2e00:1::9", 53), Some((false, 1)), "{refused:?}");
        assert!(
            to("10.1.7.2", OTHER_PORT).is_some_and(|(is_tcp, packets)| is_tcp && packets > 0),
            "{refused:?}"
        );
        assert_eq!(to("10.1.7.2", PORT), None, "{refused:?}");
        assert!(pool.refused(&slot.name).unwrap().unwrap().is_empty(), "it was told already");

        // Of more destinations than are counted by themselves each packet is counted all the same, and none gets out.
        inside(&guest.path(), || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in 1..=500 {
                socket.send_to(b"x", ("203.0.113.9", port)).unwrap();
            }
        });
        let refused = pool.refused(&slot.name).unwrap().unwrap();
        assert_eq!(
            refused.others + refused.told.iter().map(|told| told.packets).sum::<u64>(),
            500,
            "{refused}"
        );
        drop(guest);
        pool.release(slot);
        block_on(pool.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

#[test]
fn a_slot_bound_to_nothing_reaches_nothing() {
    as_host("nowhere", || {
        let tag = tag("nowhere");
        let earlier = Pool::open(config("nowhere")).unwrap();
        let slot = block_on(earlier.acquire()).unwrap();
        let _internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2");
        let _listed = Namespace::server(format!("l{tag}"), "10.1.7.1", "10.1.7.2");
        let guest = Namespace::guest(&slot);
        let reached = || inside(&guest.path(), || (reaches("203.0.113.2"), reaches("10.1.7.2")));
        assert_eq!(reached(), (true, false));
        block_on(earlier.bind(&slot, Egress::default())).unwrap();
        assert_eq!(reached(), (false, false));
        block_on(earlier.close());

        // Nor does a query leave: nobody hears of the name that was asked for.
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        let resolver = earlier.resolver(&slot, [upstream.local_addr().unwrap()].into());
        let answer = block_on(resolver.answer(&dns_query("secret.example.com"))).unwrap();
        assert_eq!(Packet::parse(&answer).unwrap().rcode(), RCODE::NameError);
        upstream.set_nonblocking(true).unwrap();
        assert_eq!(upstream.recv(&mut [0; 512]).unwrap_err().kind(), ErrorKind::WouldBlock);

        // The slot's own rules outlive the server; the next one binds it again.
        let later = Pool::open(config("nowhere")).unwrap();
        assert_eq!(reached(), (false, false));
        let slot = later.adopt(&slot.name).unwrap();
        let everywhere = Allowed { to: Destination::IPV4.into(), traffic: Traffic::Any };
        let way = Way { routes: routes(&["10.1.7.2/32"]), allowed: Some(vec![everywhere]) };
        block_on(later.bind(&slot, Egress { ways: vec![way] })).unwrap();
        assert_eq!(reached(), (false, true));
        drop(guest);
        later.release(slot);
        block_on(later.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

#[test]
fn a_rule_by_name_lets_out_what_its_name_was_answered_with() {
    as_host("names", || {
        let tag = tag("names");
        let config = NetworkConfig { min_pin: Duration::from_secs(3), ..config("names") };
        let pool = Pool::open(config.clone()).unwrap();
        let (slot, other) = (block_on(pool.acquire()).unwrap(), block_on(pool.acquire()).unwrap());
        let internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2");
        internet.greets_at(&["203.0.113.3", "203.0.113.4", "203.0.113.9"]);
        let _private = Namespace::server(format!("p{tag}"), "10.1.7.1", "10.1.7.2");
        greet("0.0.0.0");
        let (guest, neighbour) = (Namespace::guest(&slot), Namespace::guest(&other));
        let names = NameServer::start(BTreeMap::from([
            ("pkg.test".to_owned(), at(&["203.0.113.2"])),
            ("alias.test".to_owned(), Has::Alias("edge.test")),
            ("edge.test".to_owned(), at(&["203.0.113.3"])),
            ("a.b.wild.test".to_owned(), at(&["203.0.113.4"])),
            ("wild.test".to_owned(), at(&["203.0.113.9"])),
            // The first leads into a network that is routed to; the second to the host; the last is public.
            ("rebind.test".to_owned(), at(&["10.1.7.2", "203.0.113.1", "127.0.0.1", "203.0.113.4"])),
        ]));
        let group = vec![
            rule("pkg.test", PORT),
            rule("pkg.test", ECHO_PORT),
            rule("alias.test", PORT),
            rule("*.wild.test", PORT),
            rule("rebind.test", OTHER_PORT),
        ];
        let bound = Egress {
            ways: vec![Way { routes: routes(&["0.0.0.0/0", "10.1.0.0/16"]), allowed: Some(group) }],
        };
        block_on(pool.bind(&slot, bound.clone())).unwrap();
        let resolver = names.resolver(&pool, &slot);
        let everything =
            ["203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.9", "10.1.7.2", "203.0.113.1"];
        let reached = || -> Vec<&str> {
            inside(&guest.path(), || everything.into_iter().filter(|address| reaches(address)).collect())
        };
        let found = |name: &str| resolve(&resolver, name).1;
        assert_eq!(reached(), [""; 0], "nothing was resolved yet");

        // What no rule has does not exist, and nobody hears of it.
        for name in ["edge.test", "wild.test", "secret.attacker.test", "pkg.test.attacker.test"] {
            assert_eq!(resolve(&resolver, name), (RCODE::NameError, vec![]), "{name}");
        }
        assert!(names.asked.lock().unwrap().is_empty(), "{:?}", names.asked);
        // For the neighbour, which is bound to nothing, it does.
        assert_eq!(resolve(&names.resolver(&pool, &other), "edge.test").1, ["203.0.113.3"]);

        // An address is let out to by the time that the guest has it, for the rule's ports alone.
        let connect = |address: &str, port| {
            inside(&guest.path(), || {
                TcpStream::connect_timeout(&SocketAddr::new(address.parse().unwrap(), port), CONNECT)
            })
        };
        assert_eq!(found("PKG.test"), ["203.0.113.2"]);
        let open = connect("203.0.113.2", ECHO_PORT).unwrap();
        assert!(connect("203.0.113.2", PORT).is_ok() && connect("203.0.113.2", OTHER_PORT).is_err());
        assert_eq!(found("alias.test"), ["203.0.113.3"]);
        assert!(connect("203.0.113.3", PORT).is_ok() && connect("203.0.113.3", ECHO_PORT).is_err());
        assert_eq!(found("a.b.wild.test"), ["203.0.113.4"]);
        assert!(connect("203.0.113.4", PORT).is_ok(), "below the wildcard");
        assert_eq!(found("rebind.test"), ["203.0.113.4"], "the rest leads where no rule does");
        for address in ["10.1.7.2", "203.0.113.1"] {
            assert!(connect(address, OTHER_PORT).is_err(), "{address}");
        }
        assert!(connect("203.0.113.9", PORT).is_err(), "never answered");
        inside(&neighbour.path(), || assert!(reaches("203.0.113.9"), "it is there"));

        // A pin ends; what is open by then goes on; a later answer begins it anew.
        until("the pin to end", || connect("203.0.113.2", PORT).is_err());
        assert!(echoes(&open), "an open connection goes on");
        assert!(connect("203.0.113.2", ECHO_PORT).is_err(), "no new one");
        for _ in 0..2 {
            assert_eq!(found("pkg.test"), ["203.0.113.2"]);
            assert!(connect("203.0.113.2", PORT).is_ok(), "again");
        }
        assert!(echoes(&open));

        // Each ruleset holds without the other.
        inside(&slot.netns, || run("nft", "flush ruleset\n", &["-f", "-"]));
        assert_eq!(
            resolve(&resolver, "pkg.test").0,
            RCODE::ServerFailure,
            "what is not let through is not shown"
        );
        inside(&slot.netns, || {
            assert!(reaches("203.0.113.2") && !reaches("203.0.113.9") && !reaches("10.1.7.2"), "the host's");
        });
        block_on(pool.bind(&slot, bound.clone())).unwrap();
        let chains = ["forward", "early", "input"];
        run(
            "nft",
            &chains.map(|chain| format!("flush chain inet rekindle_{tag} {chain}\n")).concat(),
            &["-f", "-"],
        );
        assert_eq!(reached(), [""; 0], "the slot's own");
        assert_eq!(found("pkg.test"), ["203.0.113.2"]);
        assert_eq!(reached(), ["203.0.113.2"]);

        // The next server binds it again: names are ruled from the first query on, and have to be asked for again.
        block_on(pool.close());
        let later = Pool::open(config).unwrap();
        let slot = later.adopt(&slot.name).unwrap();
        block_on(later.bind(&slot, bound)).unwrap();
        let resolver = names.resolver(&later, &slot);
        assert_eq!(reached(), [""; 0]);
        assert_eq!(resolve(&resolver, "edge.test").0, RCODE::NameError);
        assert_eq!(resolve(&resolver, "pkg.test").1, ["203.0.113.2"]);
        assert_eq!(reached(), ["203.0.113.2"]);

        drop((guest, neighbour));
        later.release(slot);
        later.release(later.adopt(&other.name).unwrap());
        block_on(later.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

/// The milliseconds of a duration as nft lists one, which leaves out each unit that it has none of.
fn milliseconds(listed: &str) -> u64 {
    let Some(unit_at) = listed.find(|c: char| !c.is_ascii_digit()) else { return 0 };
    let (number, rest) = listed.split_at(unit_at);
    let (unit, rest) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
    let unit = match unit {
        "m" => 60_000,
        "s" => 1000,
        "ms" => 1,
        _ => panic!("{listed}"),
    };
    number.parse::<u64>().unwrap() * unit + milliseconds(rest)
}

#[test]
fn nfts_durations_leave_out_what_is_zero() {
    for (listed, expected) in [("59s980ms", 59_980), ("59s", 59_000), ("1m", 60_000), ("4ms", 4)] {
        assert_eq!(milliseconds(listed), expected, "{listed}");
    }
}

#[test]
fn a_guest_cannot_fill_the_kernels_sets() {
    const ANSWERS: u32 = 2048 / 15;
    as_host("many", || {
        let tag = tag("many");
        let pool = Pool::open(config("many")).unwrap();
        let slot = block_on(pool.acquire()).unwrap();
        let _internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2");
        let guest = Namespace::guest(&slot);
        let addresses = |n: u32| (0..15).map(|i| Ipv4Addr::from(0x2d00_0000 + n * 15 + i).into()).collect();
        let mut zone: BTreeMap<String, Has> =
            (0..=ANSWERS).map(|n| (format!("n{n}.wild.test"), Has::Addresses(addresses(n)))).collect();
        zone.insert("first.wild.test".to_owned(), at(&["203.0.113.2"]));
        let names = NameServer::start(zone);
        let way = Way { routes: Routes::internet(), allowed: Some(vec![rule("*.wild.test", PORT)]) };
        block_on(pool.bind(&slot, Egress { ways: vec![way] })).unwrap();
        let resolver = names.resolver(&pool, &slot);
        assert_eq!(resolve(&resolver, "first.wild.test").1, ["203.0.113.2"]);
        for n in 0..ANSWERS {
            assert_eq!(resolve(&resolver, &format!("n{n}.wild.test")).1.len(), 15, "{n}");
        }
        assert_eq!(
            resolve(&resolver, &format!("n{ANSWERS}.wild.test")).0,
            RCODE::ServerFailure,
            "one too many"
        );
        let set = || {
            let name = format!("slot{}_pins0", slot.index);
            run("nft", "", &["list", "set", "inet", &format!("rekindle_{tag}"), &name])
        };
        let expires = || {
            let listed = set();
            let (_, first) = listed.split_once("203.0.113.2 timeout 1m expires ").unwrap();
            milliseconds(first.split([' ', ',']).next().unwrap())
        };
        assert_eq!(set().matches("expires").count(), 1 + 15 * ANSWERS as usize);
        // What is pinned stays, and is refreshed by a later answer.
        let before = expires();
        assert_eq!(resolve(&resolver, "first.wild.test").1, ["203.0.113.2"]);
        assert!(expires() > before);
        inside(&guest.path(), || assert!(reaches("203.0.113.2")));
        drop(guest);
        pool.release(slot);
        block_on(pool.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

/// The settings of a pool whose slots have endpoints, and their listeners as they come.
fn config_with_endpoints(test: &str) -> (NetworkConfig, UnboundedReceiver<Endpoint>) {
    let (endpoints, listeners) = unbounded_channel();
    (NetworkConfig { endpoints: Some(endpoints), ready: 0, ..config(test) }, listeners)
}

/// Greets who comes to a slot's listener by its name; tells when it was to end.
fn answer(endpoint: Endpoint, greeting: &'static str) -> std::thread::JoinHandle<()> {
    let Endpoint { listener, closed } = endpoint;
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(greeting.as_bytes()).unwrap();
        }
    });
    std::thread::spawn(move || drop(closed.blocking_recv()))
}

/// The greeting at the endpoint of the guest that the calling thread is.
fn greeting() -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&endpoint::ADDRESS.into(), CONNECT).ok()?;
    stream.set_read_timeout(Some(CONNECT)).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    Some(said)
}

#[test]
fn a_guest_finds_its_endpoint_and_nothing_else_by_it() {
    as_host("endpoint", || {
        let tag = tag("endpoint");
        let (config, mut listeners) = config_with_endpoints("endpoint");
        let pool = Pool::open(config).unwrap();
        let first = block_on(pool.acquire()).unwrap();
        let ended = answer(listeners.blocking_recv().unwrap(), "first");
        let second = block_on(pool.acquire()).unwrap();
        answer(listeners.blocking_recv().unwrap(), "second");
        let _internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2");
        greet("0.0.0.0");
        // More listens in the namespace, as a VMM that was taken over might.
        inside(&first.netns, || greet("0.0.0.0"));
        let (guest, neighbour) = (Namespace::guest(&first), Namespace::guest(&second));
        let greeted = |guest: &Namespace| inside(&guest.path(), greeting);
        assert_eq!(greeted(&guest).as_deref(), Some("first"));
        assert_eq!(greeted(&neighbour).as_deref(), Some("second"), "each has its own");
        let everything = ["203.0.113.1", "100.72.0.1", "100.72.0.2", "100.72.0.6", "169.254.77.1"];
        let reached = || -> Vec<&str> {
            inside(&guest.path(), || {
                let reached = |address: &&str| reaches(address) || reaches_port(address, 80);
                everything.into_iter().filter(reached).collect()
            })
        };
        assert_eq!(reached(), ["169.254.77.1"]);
        inside(&guest.path(), || {
            assert!(!reaches("169.254.77.1"), "another port");
            assert!(reaches("203.0.113.2"), "the internet");
        });
        // Nobody else, even knowing the way.
        run("ip", "route add 169.254.77.0/30 via 100.72.0.2\n", &["-batch", "-"]);
        assert!(!reaches_port("169.254.77.1", 80) && !reaches_port("100.72.0.2", 80), "from the host");

        block_on(pool.bind(&first, Egress::default())).unwrap();
        assert_eq!(greeted(&guest).as_deref(), Some("first"), "bound to nothing");
        assert_eq!(reached(), ["169.254.77.1"]);
        inside(&guest.path(), || assert!(!reaches("203.0.113.2")));

        drop((guest, neighbour));
        assert!(!ended.is_finished());
        pool.release(first);
        ended.join().unwrap();
        pool.release(second);
        block_on(pool.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

#[test]
fn a_guest_has_few_connections_to_its_endpoint() {
    as_host("flood", || {
        let (config, mut listeners) = config_with_endpoints("flood");
        let pool = Pool::open(config).unwrap();
        let slot = block_on(pool.acquire()).unwrap();
        let Endpoint { listener, closed: _closed } = listeners.blocking_recv().unwrap();
        listener.set_nonblocking(false).unwrap();
        let guest = Namespace::guest(&slot);
        let mut held = Vec::new();
        inside(&guest.path(), || {
            for _ in 0..endpoint::MAX_CONNECTIONS {
                held.push((TcpStream::connect(endpoint::ADDRESS).unwrap(), listener.accept().unwrap().0));
            }
            assert_eq!(greeting(), None, "one too many");
            held.pop();
            until("room again", || TcpStream::connect_timeout(&endpoint::ADDRESS.into(), CONNECT).is_ok());
        });
        drop(guest);
        pool.release(slot);
        block_on(pool.close());
    });
}

#[test]
fn a_later_server_answers_the_guests_that_go_on() {
    as_host("again", || {
        let tag = tag("again");
        let earlier = Pool::open(config("again")).unwrap();
        let slot = block_on(earlier.acquire()).unwrap();
        let guest = Namespace::guest(&slot);
        let greeted = || inside(&guest.path(), greeting);
        assert_eq!(greeted(), None, "nobody wants it answered");
        block_on(earlier.close());

        // One that a slot gets its first endpoint from, and one that finds it with the rules for one.
        for name in ["second", "third"] {
            let (config, mut listeners) = config_with_endpoints("again");
            let later = Pool::open(config).unwrap();
            let adopted = later.adopt(&slot.name).unwrap();
            let Endpoint { listener, closed } = listeners.blocking_recv().unwrap();
            listener.set_nonblocking(false).unwrap();
            let server = std::thread::spawn(move || {
                listener.accept().unwrap().0.write_all(name.as_bytes()).unwrap();
            });
            assert_eq!(greeted().as_deref(), Some(name));
            server.join().unwrap();
            if name == "third" {
                later.release(adopted);
                closed.blocking_recv().unwrap_err();
            }
            block_on(later.close());
        }
        drop(guest);
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

#[test]
fn a_guest_reaches_public_addresses_over_ipv6_and_nothing_else() {
    as_host("policy6", || {
        let tag = tag("policy6");
        let pool = Pool::open(config("policy6")).unwrap();
        let (first, second) = (block_on(pool.acquire()).unwrap(), block_on(pool.acquire()).unwrap());
        let internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2");
        let internet = internet.by_ipv6("2e00:1::1", "2e00:1::2");
        let private = Namespace::server(format!("p{tag}"), "192.168.7.1", "192.168.7.2");
        let private = private.by_ipv6("fd12:1::1", "fd12:1::2");
        for (host, address) in [
            ("2001:db8:1::1", "2001:db8:1::2"),
            ("2002:a00:1::1", "2002:a00:1::2"),
            ("64:ff9b::1", "64:ff9b::2"),
        ] {
            let link = &private.name[..private.name.len().min(15)];
            run("ip", &format!("address add {host}/64 dev {link} nodad\n"), &["-batch", "-"]);
            let script = format!("address add {address}/64 dev eth0 nodad\n");
            run("ip", &script, &["-n", &private.name, "-batch", "-"]);
            inside(&private.path(), || greet(address));
        }
        greet("::");
        let guest = Namespace::guest(&first);
        let neighbour = Namespace::guest(&second);
        let others = [
            "2e00:1::1",
            "fd12:1::1",
            "fd12:1::2",
            "2001:db8:1::1",
            "2001:db8:1::2",
            "2002:a00:1::2",
            "64:ff9b::2",
        ];
        let own = ["6448:1", "6448:2", "6448:5", "6448:6", "a9fe:4d01"];
        let own = own.map(|last| format!("fd72:656b:696e::{last}"));
        for address in others.into_iter().chain(["2e00:1::2", "::1", &own[0], &own[2]]) {
            assert!(reaches(address), "the host does not reach {address}");
        }
        let kept_from = |guest: &Namespace| {
            inside(&guest.path(), || {
                for address in others.into_iter().chain(own.iter().map(String::as_str)) {
                    assert!(!reaches(address), "the guest reaches {address}");
                }
            });
        };
        inside(&guest.path(), || {
            assert!(reaches("2e00:1::2"), "the internet");
            assert!(datagram_echoes("2e00:1::2", 1).unwrap(), "by UDP");
            assert!(datagram_echoes("2e00:1::2", 1500 - 40 - 8).unwrap(), "with what a packet has room for");
        });
        kept_from(&guest);
        // Nobody opens connections to a guest, its host included, even knowing the way.
        let way = format!("route add {GUEST_V6} via fd72:656b:696e::6448:2\n");
        run("ip", &way, &["-batch", "-"]);
        assert!(!reaches(GUEST_V6));

        // A narrower link beyond the host is told to the guest.
        for (options, link) in
            [(vec![], &internet.name[..15.min(internet.name.len())]), (vec!["-n", &internet.name], "eth0")]
        {
            run("ip", "", &[&options[..], &["link", "set", link, "mtu", "1300"]].concat());
        }
        inside(&guest.path(), || {
            let mut stream = TcpStream::connect(("2e00:1::2", ECHO_PORT)).unwrap();
            let sent = vec![7; 100_000];
            let mut writer = stream.try_clone().unwrap();
            let text = sent.clone();
            let writing = std::thread::spawn(move || writer.write_all(&text));
            let mut received = vec![0; sent.len()];
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.read_exact(&mut received).unwrap();
            writing.join().unwrap().unwrap();
            assert!(received == sent);
        });

        // Each ruleset holds without the other: the host's against a VMM that took over its namespace...
        inside(&first.netns, || run("nft", "flush ruleset\n", &["-f", "-"]));
        inside(&first.netns, || {
            assert!(reaches("2e00:1::2"), "the internet");
            for address in others.into_iter().chain([&*own[0], &own[2], &own[3]]) {
                assert!(!reaches(address), "past the host's rules: {address}");
            }
        });
        // ...and the slot's own, with the host's gone, but for its address to the world.
        let chains = ["forward", "early", "input"];
        let flush = chains.map(|chain| format!("flush chain inet rekindle_{tag} {chain}\n"));
        run("nft", &flush.concat(), &["-f", "-"]);
        inside(&first.netns, || {
            for address in ["fd12:1::2", "2e00:1::1", &own[0]] {
                assert!(reaches(address), "without any rules: {address}");
            }
        });
        inside(&neighbour.path(), || {
            assert!(reaches("2e00:1::2") && reaches("2e00:1::1"), "public addresses");
            for address in others.iter().skip(1) {
                assert!(!reaches(address), "past the slot's rules: {address}");
            }
        });
        drop((guest, neighbour));
        [first, second].into_iter().for_each(|slot| pool.release(slot));
        block_on(pool.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

/// Announces a router with a prefix to whoever is on the link, in the namespace of the calling thread.
fn announce_router(link: &str) {
    run("ip", &format!("address add fe80::bad/64 dev {link} nodad\n"), &["-batch", "-"]);
    let shown = run("ip", "", &["-o", "link", "show", link]);
    let index = shown.split(':').next().unwrap().parse().unwrap();
    let lifetime = 1800_u16.to_be_bytes();
    let announcement = [&[134, 0, 0, 0, 64, 0][..], &lifetime, &[0; 8]].concat();
    let prefix = Ipv6Addr::new(0x2e00, 0xbad, 0, 0, 0, 0, 0, 0).octets();
    let prefix = [&[3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0][..], &prefix].concat();
    let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
    // Others are not believed.
    sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
    let everybody = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
    sendto(&socket, &[announcement, prefix].concat(), SendFlags::empty(), &everybody).unwrap();
}

#[test]
fn nobody_believes_a_guest_that_is_another_or_a_router() {
    as_host("spoof6", || {
        let tag = tag("spoof6");
        let pool = Pool::open(config("spoof6")).unwrap();
        let slot = block_on(pool.acquire()).unwrap();
        let _internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2")
            .by_ipv6("2e00:1::1", "2e00:1::2");
        let guest = Namespace::guest(&slot);
        let by_router = |options: &[&str]| {
            let shown = run("ip", "", &[options, &["-6", "route", "show"]].concat());
            shown.contains("proto ra") || shown.contains("2e00:bad::")
        };
        let of_slot = ["-n", &*slot.name];
        for link in ["tap0", "uplink"] {
            let shown = run("ip", "", &["-n", &slot.name, "-6", "address", "show", "dev", link]);
            assert!(!shown.contains("fe80:"), "link-local addresses: {shown}");
        }

        // The rules keep it from a slot that would listen...
        let listen =
            |link: &str| std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra"), "2").unwrap();
        inside(&slot.netns, || listen("tap0"));
        let announced = || {
            inside(&guest.path(), || {
                announce_router("eth0");
                // Packets on a link keep their order: what came before this has been seen. IPv6 may lead elsewhere now.
                assert!(reaches("203.0.113.2"));
                run("ip", "address delete fe80::bad/64 dev eth0\n", &["-batch", "-"]);
            });
        };
        announced();
        assert!(!by_router(&of_slot), "past the rules");
        // ...and from a host that would listen to a VMM that took over its namespace, as without rules it is believed.
        listen(&slot.name);
        inside(&slot.netns, || {
            run("nft", "flush ruleset\n", &["-f", "-"]);
            announce_router("uplink");
            assert!(reaches("203.0.113.2"));
        });
        assert!(!by_router(&[]), "past the host's rules");
        let masquerade = "table inet rekindle { chain post { type nat hook postrouting priority srcnat; \
                          oifname \"uplink\" masquerade; }; }\n";
        inside(&slot.netns, || run("nft", masquerade, &["-f", "-"]));
        announced();
        assert!(by_router(&of_slot), "without rules it is believed");

        // One that is as it was made listens to nobody, rules or not.
        let other = block_on(pool.acquire()).unwrap();
        let guest = Namespace::guest(&other);
        inside(&other.netns, || run("nft", "flush ruleset\n", &["-f", "-"]));
        inside(&other.netns, || run("nft", masquerade, &["-f", "-"]));
        inside(&guest.path(), || {
            announce_router("eth0");
            assert!(reaches("203.0.113.2"));
        });
        assert!(!by_router(&["-n", &*other.name]), "without rules");

        // A false sender address would get through, and its answers back, if the slot did not drop it.
        let third = block_on(pool.acquire()).unwrap();
        let liar = Namespace::guest(&third);
        let route = format!("route add 2e00:9::9 via {GUEST_V6} dev tap0\n");
        run("ip", &route, &["-n", &third.name, "-batch", "-"]);
        inside(&liar.path(), || {
            let lie = format!(
                "address add 2e00:9::9/128 dev lo nodad\n\
                 route replace ::/0 via {GATEWAY_V6} dev eth0 onlink src 2e00:9::9\n"
            );
            run("ip", &lie, &["-batch", "-"]);
            assert!(!reaches("2e00:1::2"), "a false sender address passes");
        });
        inside(&third.netns, || run("nft", "flush chain inet rekindle early\n", &["-f", "-"]));
        inside(&liar.path(), || assert!(reaches("2e00:1::2"), "without the rule"));
        drop((guest, liar));
        [slot, other, third].into_iter().for_each(|slot| pool.release(slot));
        block_on(pool.close());
    });
}

#[test]
fn where_the_host_has_no_ipv6_a_guest_is_told_at_once() {
    as_host("noroute6", || {
        let tag = tag("noroute6");
        let pool = Pool::open(NetworkConfig { ready: 0, ..config("noroute6") }).unwrap();
        let slot = block_on(pool.acquire()).unwrap();
        let names = NameServer::start(BTreeMap::from([
            ("both.test".to_owned(), at(&["203.0.113.2", "2e00:1::2"])),
            ("private.test".to_owned(), at(&["fd12:1::2"])),
        ]));
        let resolver = names.resolver(&pool, &slot);
        let found = |name: &str| resolve_for(&resolver, name, TYPE::AAAA);
        let nothing = (RCODE::NoError, vec![]);
        let told_at_once = |slot: &Slot| {
            let guest = Namespace::guest(slot);
            inside(&guest.path(), || {
                // More than the kernel would tell anybody within a second.
                for port in 1..=40 {
                    let to = SocketAddr::new("2e00:1::2".parse().unwrap(), port);
                    let error = TcpStream::connect_timeout(&to, CONNECT).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{port}: {error}");
                }
                let error = datagram_echoes("2e00:1::2", 1).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
            });
        };
        told_at_once(&slot);
        assert_eq!(found("both.test"), nothing, "it would be tried in vain");
        assert_eq!(resolve(&resolver, "both.test").1, ["203.0.113.2"]);

        // A host that has none at all: its slots' guests are told by the slot.
        let switch = |value| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", value).unwrap();
        switch("1");
        let without = block_on(pool.acquire()).unwrap();
        told_at_once(&without);
        switch("0");

        // It may get it while guests run.
        let _internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2")
            .by_ipv6("2e00:1::1", "2e00:1::2");
        let guest = Namespace::guest(&slot);
        inside(&guest.path(), || assert!(reaches("2e00:1::2")));
        assert_eq!(found("both.test").1, ["2e00:1::2"]);
        assert_eq!(found("private.test"), nothing, "an unbound guest is not let out to it");
        drop(guest);
        [slot, without].into_iter().for_each(|slot| pool.release(slot));
        block_on(pool.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

#[test]
fn a_host_that_begins_to_forward_goes_on_listening_to_routers() {
    as_host("forward6", || {
        let setting = |name: &str| PathBuf::from(format!("/proc/sys/net/ipv6/conf/{name}"));
        let read = |name: &str| std::fs::read_to_string(setting(name)).unwrap().trim().to_owned();
        let open = || block_on(Pool::open(config("forward6")).unwrap().close());
        run("ip", "link add listens type veth peer name deaf\n", &["-batch", "-"]);
        std::fs::write(setting("deaf/accept_ra"), "0").unwrap();
        std::fs::write(setting("default/disable_ipv6"), "1").unwrap();
        open();
        assert_eq!(
            (read("all/forwarding"), read("listens/accept_ra")),
            ("0".into(), "1".into()),
            "it is off"
        );
        std::fs::write(setting("default/disable_ipv6"), "0").unwrap();
        open();
        assert_eq!((read("all/forwarding"), read("listens/accept_ra")), ("1".into(), "2".into()));
        assert_eq!((read("deaf/accept_ra"), read("default/accept_ra")), ("0".into(), "1".into()));
    });
}

#[test]
fn a_binding_is_about_ipv6_too() {
    as_host("bound6", || {
        let tag = tag("bound6");
        let pool = Pool::open(config("bound6")).unwrap();
        let slot = block_on(pool.acquire()).unwrap();
        let internet = Namespace::server(format!("i{tag}"), "203.0.113.1", "203.0.113.2")
            .by_ipv6("2e00:1::1", "2e00:1::2");
        for address in ["2e00:1::3", "2e00:1::9"] {
            run(
                "ip",
                &format!("address add {address}/64 dev eth0 nodad\n"),
                &["-n", &internet.name, "-batch", "-"],
            );
            inside(&internet.path(), || greet(address));
        }
        let _listed =
            Namespace::server(format!("l{tag}"), "10.1.7.1", "10.1.7.2").by_ipv6("fd12:1::1", "fd12:1::2");
        greet("::");
        let guest = Namespace::guest(&slot);
        let everything =
            ["203.0.113.2", "2e00:1::2", "2e00:1::3", "2e00:1::9", "2e00:1::1", "fd12:1::2", "fd12:1::1"];
        let reached = |path: &Path| -> Vec<&str> {
            inside(path, || everything.into_iter().filter(|address| reaches(address)).collect())
        };
        let bind = |routes, allowed| {
            block_on(pool.bind(&slot, Egress { ways: vec![Way { routes, allowed }] })).unwrap();
        };
        let names = NameServer::start(BTreeMap::from([
            ("pkg.test".to_owned(), at(&["203.0.113.2", "2e00:1::2"])),
            ("rebind.test".to_owned(), at(&["fd12:1::2", "2e00:1::1", "fe80::1", "::1", "2e00:1::3"])),
        ]));
        let resolver = names.resolver(&pool, &slot);
        let found = |name: &str| resolve_for(&resolver, name, TYPE::AAAA).1;

        bind(routes(&["0.0.0.0/0"]), None);
        assert_eq!(reached(&guest.path()), ["203.0.113.2"], "by IPv4 alone");
        assert_eq!(found("pkg.test"), [""; 0], "it would be tried in vain");
        bind(routes(&["fd12:1::/32"]), None);
        assert_eq!(reached(&guest.path()), ["fd12:1::2"], "neither the internet nor the host");
        assert_eq!(found("rebind.test").len(), 5, "names are free, and one leads where it may go");
        let traffic = Traffic::Tcp(PORT.to_string().parse().unwrap());
        let group = vec![Allowed { to: "2e00:1::2/128".parse::<Destination>().unwrap().into(), traffic }];
        bind(routes(&["::/0", "fd12:1::/32"]), Some(group));
        assert_eq!(reached(&guest.path()), ["2e00:1::2"]);
        inside(&guest.path(), || assert!(!reaches_port("2e00:1::2", OTHER_PORT), "past the group"));
        inside(&slot.netns, || run("nft", "flush ruleset\n", &["-f", "-"]));
        assert_eq!(reached(&slot.netns), ["2e00:1::2"], "the host's own");
        inside(&slot.netns, || assert!(!reaches_port("2e00:1::2", OTHER_PORT), "past the host's rules"));

        // By name: what the guest's own query was answered with, and nothing that leads into the host's networks.
        let group = vec![rule("pkg.test", PORT), rule("rebind.test", PORT)];
        bind(routes(&["0.0.0.0/0", "::/0", "fd12:1::/32"]), Some(group));
        assert_eq!(reached(&guest.path()), [""; 0], "nothing was resolved yet");
        assert_eq!(found("pkg.test"), ["2e00:1::2"]);
        assert_eq!(reached(&guest.path()), ["2e00:1::2"]);
        assert_eq!(resolve(&resolver, "pkg.test").1, ["203.0.113.2"]);
        assert_eq!(reached(&guest.path()), ["203.0.113.2", "2e00:1::2"]);
        assert_eq!(found("rebind.test"), ["2e00:1::3"], "the rest leads where no rule does");
        assert_eq!(reached(&guest.path()), ["203.0.113.2", "2e00:1::2", "2e00:1::3"]);
        inside(&slot.netns, || run("nft", "flush ruleset\n", &["-f", "-"]));
        assert_eq!(reached(&slot.netns), ["203.0.113.2", "2e00:1::2", "2e00:1::3"], "the host's own");
        bind(Routes::default(), None);
        assert_eq!(reached(&guest.path()), [""; 0]);
        drop(guest);
        pool.release(slot);
        block_on(pool.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

fn mac_of_tap(slot: &Slot) -> String {
    let shown = run("ip", "", &["-n", &slot.name, "-o", "link", "show", "tap0"]);
    shown.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

/// Everything there is of the instance: namespaces, links, tables.
fn census(tag: &InstanceTag) -> [usize; 3] {
    let prefix = format!("rk{tag}-");
    let namespaces = std::fs::read_dir("/run/netns").map_or(0, |entries| {
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&prefix))
            .count()
    });
    let links = run("ip", "", &["-o", "link", "show"]).matches(&format!(": {prefix}")).count();
    let tables = run("nft", "", &["list", "tables"]).matches(&format!("rekindle_{tag}")).count();
    [namespaces, links, tables]
}

#[test]
fn nothing_is_left_after_release_reap_and_close() {
    as_host("leaks", || {
        let tag = tag("leaks");
        let pool = Pool::open(config("leaks")).unwrap();
        let slots: Vec<Slot> = (0..6).map(|_| block_on(pool.acquire()).unwrap()).collect();
        let names: BTreeSet<_> = slots.iter().map(|slot| slot.name.clone()).collect();
        assert_eq!(names.len(), 6, "slots are handed out once");
        let tap = run("ip", "", &["-n", &slots[0].name, "-d", "link", "show", "tap0"]);
        assert!(tap.contains("user root"), "a VMM that broke out must not open it: {tap}");
        let macs: BTreeSet<_> = slots.iter().map(mac_of_tap).collect();
        assert_eq!(macs.len(), 1, "a guest knows its gateway in every slot: {macs:?}");
        let users: BTreeSet<_> = slots.iter().map(|slot| slot.uid).collect();
        assert!(users.len() == 6 && users.iter().all(|user| *user >= FIRST_UID), "{users:?}");

        // A reap with nothing to keep does not touch what is handed out or ready.
        assert!(block_on(pool.reap(BTreeSet::new())).unwrap().is_empty());
        assert!(slots.iter().all(|slot| slot.netns.exists()));
        slots.into_iter().for_each(|slot| pool.release(slot));
        block_on(pool.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

#[test]
fn a_later_server_adopts_and_reaps() {
    as_host("adopt", || {
        let tag = tag("adopt");
        let earlier = Pool::open(config("adopt")).unwrap();
        let kept = block_on(earlier.acquire()).unwrap();
        let orphan = block_on(earlier.acquire()).unwrap();
        block_on(earlier.close());
        assert_eq!(census(&tag), [2, 2, 1], "slots in use and the rules about them outlive the server");

        let later = Pool::open(config("adopt")).unwrap();
        assert!(matches!(later.adopt("rkffffffff-1"), Err(AdoptError::Foreign(_))));
        assert!(matches!(later.adopt(&format!("rk{tag}-900")), Err(AdoptError::Gone(_))));
        assert_eq!(later.adopt(&kept.name).unwrap(), kept);
        assert!(matches!(later.adopt(&kept.name), Err(AdoptError::InUse(_))));
        assert_eq!(block_on(later.reap(BTreeSet::from([kept.name.clone()]))).unwrap(), [orphan.name]);
        assert!(kept.netns.exists());
        later.release(kept);
        block_on(later.close());
        assert_eq!(census(&tag), [0, 0, 0]);
    });
}

#[test]
fn limits_and_conflicts_are_reported() {
    as_host("limits", || {
        let pool = Pool::open(NetworkConfig { max_slots: 1, ..config("limits") }).unwrap();
        let only = block_on(pool.acquire()).unwrap();
        assert!(matches!(block_on(pool.acquire()), Err(AcquireError::Exhausted(1))));
        pool.release(only);
        let again = block_on(pool.acquire()).unwrap();
        assert!(again.netns.exists());
        check_rules().unwrap();
        assert_eq!(census(&tag("limits"))[2], 1, "which changes nothing");
        let conflict = Pool::open(config("limits, another")).unwrap_err();
        assert!(matches!(conflict, OpenError::RangeInUse { .. }), "{conflict}");
        block_on(pool.close());
        assert_eq!(census(&tag("limits")), [1, 1, 1]);
        remove_instance(&tag("limits")).unwrap();
        assert_eq!(census(&tag("limits")), [0, 0, 0]);
    });
}

#[test]
fn a_cgroup_limits_those_who_join_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let groups = Cgroups::open(&tag("cgroup")).unwrap();
    let limits = Limits {
        memory_bytes: 64 << 20,
        kept_bytes: 16 << 20,
        pids: 8,
        cpu_millis: Some(500),
        weight_millis: 250,
    };
    let group = groups.create("vm-1", &limits).unwrap();
    assert_eq!(groups.create("vm-1", &limits).unwrap(), group, "creating is idempotent");
    let mut member = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    for dir in &group.dirs {
        std::fs::write(dir.join("cgroup.procs"), member.id().to_string()).unwrap();
    }
    assert!(groups.remove("vm-1").is_err(), "a group in use stays");
    drop(member.stdin.take());
    member.wait().unwrap();
    assert_eq!(groups.reap(&BTreeSet::new()).unwrap(), BTreeSet::from(["vm-1".to_owned()]));
    assert!(group.dirs.iter().all(|dir| !dir.exists()));
    groups.remove("vm-1").unwrap();
    groups.close().unwrap();
}

/// Two that want one CPU, of which one weighs four times the other.
#[test]
fn cgroups_get_what_they_weigh_and_are_told_what_they_took() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let groups = Cgroups::open(&tag("weights")).unwrap();
    assert_eq!(groups.usage("nobody"), None);
    let limits = |weight_millis| Limits {
        memory_bytes: 64 << 20,
        kept_bytes: 16 << 20,
        pids: 8,
        cpu_millis: None,
        weight_millis,
    };
    let names = ["light", "heavy"];
    let mut loops = Vec::new();
    for (name, weight_millis) in names.iter().zip([250, 1000]) {
        let group = groups.create(name, &limits(weight_millis)).unwrap();
        let mut busy = Command::new("taskset");
        busy.args([
            "1",
            "sh",
            "-c",
            r#"read go; all=$(head -c 1000000 /dev/zero | tr "\0" x); while :; do :; done"#,
        ]);
        let child = busy.stdin(Stdio::piped()).spawn().unwrap();
        for dir in &group.dirs {
            std::fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        loops.push(child);
    }
    let taken = || names.map(|name| groups.usage(name).unwrap().cpu_nanos);
    let begin = Instant::now();
    let before = taken();
    loops.iter_mut().for_each(|child| drop(child.stdin.take()));
    // Until they have had enough of the CPU to tell, whatever else wants it.
    const ENOUGH: u64 = 2_000_000_000;
    let [light, heavy] = loop {
        let now = taken();
        let took = [now[0] - before[0], now[1] - before[1]];
        if took[0] + took[1] > ENOUGH {
            break took;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{took:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let memory = groups.usage("heavy").unwrap().memory_bytes;
    for (name, mut child) in names.iter().zip(loops) {
        groups.kill(name).unwrap();
        child.wait().unwrap();
        groups.remove(name).unwrap();
    }
    groups.close().unwrap();
    let ratio = heavy as f64 / light as f64;
    assert!((2.5..6.0).contains(&ratio), "{heavy} ns beside {light} ns");
    assert!((1_000_000..64 << 20).contains(&memory), "{memory} bytes");
}
