//! Resolving names for guests: a raw query goes to the host's resolvers, the raw answer comes back.
//!
//! Queries travel under an id of our own from a fresh port, so that a guest which chooses its ids badly (or on
//! purpose) does not make answers easier to forge.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// The longest query taken from a guest.
pub const MAX_QUERY: usize = 4096;
/// The longest answer DNS has room for.
pub const MAX_ANSWER: usize = 65_535;
/// How long one resolver has over one transport.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);
/// The most resolvers that are asked: as many as the C library does.
pub const MAX_UPSTREAMS: usize = 3;
const HEADER: usize = 12;
/// Where resolvers listen.
pub const PORT: u16 = 53;

const FLAG_RESPONSE: u8 = 0x80;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;
/// An OPT record (RFC 6891) that says that answers of 1232 bytes come through over UDP.
const EDNS: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
/// Of a record: the name at the question's place.
const NAME_OF_THE_QUESTION: [u8; 2] = [0xc0, 12];
/// The type of records of IPv4 addresses.
pub const TYPE_A: u16 = 1;
/// The type of records of IPv6 addresses.
pub const TYPE_AAAA: u16 = 28;
/// The internet's class, the only one in use.
pub const CLASS_IN: u16 = 1;
const RCODE_OK: u8 = 0;
const RCODE_SERVFAIL: u8 = 2;
const RCODE_NXDOMAIN: u8 = 3;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// What the guest sent is not a query.
    #[error("cannot resolve: {0} bytes are not a DNS query (12 to 4096 bytes, one question, not an answer)")]
    Query(usize),
    /// No resolver to ask.
    #[error("cannot resolve: no name servers are known; name at least one in the host's resolv.conf")]
    NoUpstream,
    /// No random id.
    #[error("cannot resolve: the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// Nobody answered.
    #[error(
        "cannot resolve: {upstream} did not answer: {source}; check the name servers in the host's resolv.conf"
    )]
    Upstream {
        /// The last resolver asked.
        upstream: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
}

/// The name servers of a resolv.conf; as the C library does, this machine's own if it names none.
pub fn upstreams(resolv_conf: &Path) -> io::Result<Vec<SocketAddr>> {
    Ok(parse_resolv_conf(&std::fs::read_to_string(resolv_conf)?))
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, PORT))
    };
    let mut found: Vec<_> = text.lines().filter_map(server).take(MAX_UPSTREAMS).collect();
    if found.is_empty() {
        found.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    found
}

/// Asks the resolvers in turn until one answers; an answer too long for UDP is fetched over TCP.
pub async fn forward(query: &[u8], upstreams: &[SocketAddr]) -> Result<Vec<u8>, ForwardError> {
    let (own, guest_id) = (prepare(query)?, [query[0], query[1]]);
    let mut failure = ForwardError::NoUpstream;
    for &upstream in upstreams.iter().take(MAX_UPSTREAMS) {
        match ask(&own, upstream).await {
            Ok(mut answer) => {
                answer[..2].copy_from_slice(&guest_id);
                return Ok(answer);
            }
            Err(source) => failure = ForwardError::Upstream { upstream, source },
        }
    }
    Err(failure)
}

/// The answer that says resolving failed, for the guest not to wait in vain; `None` if this was no query.
pub fn server_failure(query: &[u8]) -> Option<Vec<u8>> {
    without_records(query, RCODE_SERVFAIL)
}

/// The answer that says that there is no such name; `None` if this was no query.
pub fn no_such_name(query: &[u8]) -> Option<Vec<u8>> {
    without_records(query, RCODE_NXDOMAIN)
}

/// The answer that says that the name exists, but nothing of what was asked for; `None` if this was no query.
pub fn no_data(query: &[u8]) -> Option<Vec<u8>> {
    without_records(query, RCODE_OK)
}

/// The answer that these are the name's addresses for `ttl` seconds; `None` if this was no query.
pub fn addresses(query: &[u8], ttl: u32, addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let mut answer = no_data(query)?;
    answer[6..8].copy_from_slice(&u16::try_from(addresses.len()).ok()?.to_be_bytes());
    for address in addresses {
        match address {
            IpAddr::V4(v4) => push_record(&mut answer, TYPE_A, ttl, &v4.octets()),
            IpAddr::V6(v6) => push_record(&mut answer, TYPE_AAAA, ttl, &v6.octets()),
        }
    }
    Some(answer)
}

fn push_record<const N: usize>(answer: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8; N]) {
    answer.extend(NAME_OF_THE_QUESTION);
    answer.extend(kind.to_be_bytes());
    answer.extend(CLASS_IN.to_be_bytes());
    answer.extend(ttl.to_be_bytes());
    // An address has 4 or 16 bytes.
    answer.extend([0, N as u8]);
    answer.extend(data);
}

/// The query for the same, with nothing in it but its question; `None` if this was no query.
pub fn only_the_question(query: &[u8]) -> Option<Vec<u8>> {
    let question = question(query).filter(|_| is_query(query))?;
    let header = [query[0], query[1], FLAG_RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    Some([&header[..], question, &EDNS].concat())
}

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    bytes: &'a [u8],
    /// The type of the records.
    pub kind: u16,
    /// Their class.
    pub class: u16,
}

impl<'a> Question<'a> {
    /// The question of a guest's query, if it is one.
    #[must_use]
    pub fn of_query(query: &'a [u8]) -> Option<Self> {
        let bytes = question(query).filter(|_| is_query(query))?;
        let [.., a, b, c, d] = *bytes else { return None };
        Some(Self { bytes, kind: u16::from_be_bytes([a, b]), class: u16::from_be_bytes([c, d]) })
    }

    /// The labels of its name.
    pub fn labels(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first().filter(|(length, _)| **length > 0)?;
            let (label, next) = after.split_at_checked(usize::from(*length))?;
            rest = next;
            Some(label)
        })
    }
}

/// Whether an answer is one to this question.
pub(crate) fn repeats(asked: &Question<'_>, answer: &[u8]) -> bool {
    let repeated = question(answer).is_some_and(|question| question.eq_ignore_ascii_case(asked.bytes));
    repeated && answer[2] & FLAG_RESPONSE != 0
}

fn without_records(query: &[u8], code: u8) -> Option<Vec<u8>> {
    let question = question(query).filter(|_| is_query(query))?;
    let mut answer = query[..2].to_vec();
    // Opcode and "recursion desired" are the query's; recursion is available, whatever came of it.
    answer.extend([
        FLAG_RESPONSE | (query[2] & 0x79),
        FLAG_RECURSION_AVAILABLE | code,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    answer.extend(question);
    Some(answer)
}

/// The query under an id of our own.
fn prepare(query: &[u8]) -> Result<Vec<u8>, ForwardError> {
    if !is_query(query) || question(query).is_none() {
        return Err(ForwardError::Query(query.len()));
    }
    let mut own = query.to_vec();
    getrandom::fill(&mut own[..2]).map_err(ForwardError::Random)?;
    Ok(own)
}

fn is_query(message: &[u8]) -> bool {
    (HEADER..=MAX_QUERY).contains(&message.len())
        && message[2] & FLAG_RESPONSE == 0
        && message[4..6] == [0, 1]
}

/// The bytes of the first question: labels, type and class. Questions are never compressed.
fn question(message: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER;
    loop {
        match usize::from(*message.get(end)?) {
            0 => break,
            label @ 1..=63 => end += 1 + label,
            _ => return None,
        }
    }
    message.get(HEADER..end + 5)
}

/// Whether this answers that query: same id, same question (a name's case aside).
fn answers(query: &[u8], answer: &[u8]) -> bool {
    if answer.len() < HEADER || answer[..2] != query[..2] || answer[2] & FLAG_RESPONSE == 0 {
        return false;
    }
    // A server that cannot parse the question may refuse without repeating it.
    let refusal = answer[4..6] == [0, 0] && answer[3] & 0x0f != 0;
    let same = match (question(query), question(answer)) {
        (Some(asked), Some(repeated)) => asked.eq_ignore_ascii_case(repeated),
        _ => false,
    };
    refusal || same
}

async fn ask(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let answer = within_timeout(over_udp(query, upstream)).await?;
    if answer[2] & FLAG_TRUNCATED == 0 {
        return Ok(answer);
    }
    match within_timeout(over_tcp(query, upstream)).await {
        Ok(whole) => Ok(whole),
        Err(error) => {
            tracing::debug!(%upstream, %error, "no answer over TCP: the truncated one has to do");
            Ok(answer)
        }
    }
}

async fn within_timeout<T>(attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(TRY_TIMEOUT, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn over_udp(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, it takes datagrams from the resolver alone.
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(query, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(upstream).await?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if answers(query, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer belongs to another question"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tokio::net::TcpListener;

    pub(crate) fn query(name: &str) -> Vec<u8> {
        query_for(name, 1)
    }

    pub(crate) fn query_for(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    fn answer_to(query: &[u8], flags: u8, tail: &[u8]) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= FLAG_RESPONSE | flags;
        answer.extend(tail);
        answer
    }

    #[test]
    fn resolv_conf_is_read_as_the_c_library_does() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\nnameserver\t2001:db8::1 \nnameserver nonsense\n";
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(parse_resolv_conf(text), expected);
        assert_eq!(parse_resolv_conf("options ndots:1"), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn only_queries_are_taken() {
        assert!(prepare(&query("example.com")).is_ok());
        let mut runaway = query("example.com");
        runaway[HEADER] = 63;
        let mut pointer = query("example.com");
        pointer[HEADER] = 0xc0;
        let long = [query("example.com"), vec![0; MAX_QUERY]].concat();
        for bad in [vec![], vec![0; 11], answer_to(&query("a"), 0, &[]), runaway, pointer, long] {
            assert!(prepare(&bad).is_err());
            assert_eq!(server_failure(&bad), None);
        }
    }

    #[test]
    fn a_failure_repeats_the_question() {
        let asked = query("example.com");
        for (answer, code) in [
            (server_failure(&asked), RCODE_SERVFAIL),
            (no_such_name(&asked), RCODE_NXDOMAIN),
            (no_data(&asked), RCODE_OK),
        ] {
            let answer = answer.unwrap();
            assert!(answers(&asked, &answer));
            assert_eq!(answer[3] & 0x0f, code);
        }
    }

    #[test]
    fn an_answer_of_ours_has_the_addresses_and_fits_a_datagram() {
        let longest = [&["a"; 125][..], &["bbb"]].concat().join(".");
        let asked = query(&longest);
        let ipv4: Vec<IpAddr> = (0..15).map(|n| IpAddr::from([203, 0, 113, n])).collect();
        let ipv6: Vec<IpAddr> = (0..8).map(|n| IpAddr::from([0x2a00, 0, 0, 0, 0, 0, 0, n])).collect();
        for given in [ipv4, ipv6] {
            let answer = addresses(&asked, 60, &given).unwrap();
            assert!(answer.len() <= 512 && answers(&asked, &answer));
            let packet = simple_dns::Packet::parse(&answer).unwrap();
            let found = packet.answers.iter().map(|record| match &record.rdata {
                _ if record.name.to_string() != longest || record.ttl != 60 => panic!("{record:?}"),
                simple_dns::rdata::RData::A(a) => IpAddr::from(Ipv4Addr::from(a.address)),
                simple_dns::rdata::RData::AAAA(aaaa) => IpAddr::from(Ipv6Addr::from(aaaa.address)),
                other => panic!("{other:?}"),
            });
            assert_eq!(found.collect::<Vec<_>>(), given);
        }
    }

    #[test]
    fn nothing_but_the_question_is_passed_on() {
        let mut asked = query("example.com");
        asked[2] |= 0x78;
        asked.extend(b"more of the guest's");
        let own = only_the_question(&asked).unwrap();
        assert!(!own.windows(5).any(|bytes| bytes == b"guest") && own[2] == FLAG_RECURSION_DESIRED);
        let packet = simple_dns::Packet::parse(&own).unwrap();
        assert!(packet.opt().is_some() && packet.questions[0].qname.to_string() == "example.com");
        let question = Question::of_query(&asked).unwrap();
        assert_eq!(question.labels().collect::<Vec<_>>(), [&b"example"[..], b"com"]);
        assert_eq!((question.kind, question.class), (1, 1));
    }

    #[test]
    fn an_answer_must_match_its_query() {
        let asked = query("example.com");
        assert!(answers(&asked, &answer_to(&query("EXAMPLE.com"), 0, &[])));
        assert!(!answers(&asked, &answer_to(&query("example.org"), 0, &[])));
        let mut other_id = answer_to(&asked, 0, &[]);
        other_id[0] ^= 1;
        assert!(!answers(&asked, &other_id));
        assert!(!answers(&asked, &asked));
    }

    #[tokio::test]
    async fn forged_answers_are_passed_over_and_the_guests_id_is_restored() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstream = server.local_addr().unwrap();
        let serve = async {
            let mut buffer = [0; 512];
            let (length, peer) = server.recv_from(&mut buffer).await.unwrap();
            let genuine = answer_to(&buffer[..length], 0, b"genuine");
            let mut forged = genuine.clone();
            forged[0] ^= 0xff;
            server.send_to(&forged, peer).await.unwrap();
            server.send_to(&genuine, peer).await.unwrap();
        };
        let asked = query("example.com");
        let (answer, ()) = tokio::join!(forward(&asked, std::slice::from_ref(&upstream)), serve);
        let answer = answer.unwrap();
        assert_eq!(answer[..2], asked[..2]);
        assert!(answer.ends_with(b"genuine"));
    }

    #[tokio::test]
    async fn a_truncated_answer_is_fetched_over_tcp_from_the_second_resolver() {
        let stream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = stream.local_addr().unwrap();
        let datagram = UdpSocket::bind(upstream).await.unwrap();
        // Bound and dropped: nobody listens there, which a connected socket learns at once.
        let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let serve = async {
            let mut buffer = [0; 512];
            let (length, peer) = datagram.recv_from(&mut buffer).await.unwrap();
            datagram.send_to(&answer_to(&buffer[..length], FLAG_TRUNCATED, &[]), peer).await.unwrap();
            let (mut tcp, _) = stream.accept().await.unwrap();
            let mut asked = vec![0; usize::from(tcp.read_u16().await.unwrap())];
            tcp.read_exact(&mut asked).await.unwrap();
            let answer = answer_to(&asked, 0, &[7; 3000]);
            tcp.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            tcp.write_all(&answer).await.unwrap();
        };
        let asked = query("example.com");
        let resolvers = [dead, upstream];
        let (answer, ()) = tokio::join!(forward(&asked, &resolvers), serve);
        assert_eq!(answer.unwrap().len(), asked.len() + 3000);
    }

    #[tokio::test]
    async fn without_resolvers_there_is_no_answer() {
        assert!(matches!(forward(&query("a"), &[]).await, Err(ForwardError::NoUpstream)));
    }
}
