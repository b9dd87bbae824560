//! A thin client of QMP: one command at a time, events kept until asked for.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::stall::{self, Stall, Watch};
use crate::error::CommandError;

/// Longest line taken from the VMM.
const MAX_LINE: usize = 1 << 20;
/// Most events kept; older ones are dropped.
const MAX_EVENTS: usize = 64;
/// How long the VMM may take to answer a command or send an event that is waited for.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(60);

/// A message from the VMM.
#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Answer { id: Option<u64>, result: Result<Value, String> },
    Event(Event),
}

/// Something that happened in the VMM.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<WireError>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct WireError {
    desc: String,
}

fn parse(line: &[u8]) -> Result<Message, CommandError> {
    let wire: Wire = serde_json::from_slice(line).map_err(|_| CommandError::Protocol("not a message"))?;
    match wire {
        Wire { greeting: Some(_), .. } => Ok(Message::Greeting),
        Wire { event: Some(name), data, .. } => Ok(Message::Event(Event { name, data })),
        Wire { error: Some(error), id, .. } => Ok(Message::Answer { id, result: Err(error.desc) }),
        Wire { result: Some(value), id, .. } => Ok(Message::Answer { id, result: Ok(value) }),
        _ => Err(CommandError::Protocol("neither answer nor event")),
    }
}

/// One command at a time goes over it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    unread: Vec<u8>,
    events: VecDeque<Event>,
    last_id: u64,
    /// A command went out in part: its caller gave up, and nothing more can be said on this connection.
    torn: bool,
    pub(crate) stall: Stall,
}

/// A control connection.
#[derive(Debug)]
pub(crate) struct Qmp {
    connection: Arc<Mutex<Connection>>,
    watch: OnceLock<Watch>,
}

impl Qmp {
    /// Connects to a listening VMM and negotiates.
    pub(crate) async fn connect(path: &Path) -> Result<Self, CommandError> {
        let stream = UnixStream::connect(path).await?;
        let qmp = Self {
            connection: Arc::new(Mutex::new(Connection {
                stream,
                unread: Vec::new(),
                events: VecDeque::new(),
                last_id: 0,
                torn: false,
                stall: Stall::default(),
            })),
            watch: OnceLock::new(),
        };
        let greeting = async { qmp.connection.lock().await.message().await };
        match timeout(ANSWER_TIME, greeting).await.map_err(|_| CommandError::Timeout("greeting".into()))?? {
            Message::Greeting => {}
            _ => return Err(CommandError::Protocol("no greeting")),
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// From now on has the machine of this process go on where it stops for want of room on the host's disk.
    pub(crate) async fn keep_going(&self, pid: i32) -> Result<(), CommandError> {
        let connection = self.connection.lock().await;
        let watch = stall::watch(pid, Arc::clone(&self.connection), connection.stream.as_fd())?;
        self.watch.get_or_init(|| watch);
        Ok(())
    }

    /// Runs a command.
    pub(crate) async fn execute(&self, command: &str, arguments: Value) -> Result<Value, CommandError> {
        self.run(command, arguments, None).await
    }

    /// Runs a command that comes with a file.
    pub(crate) async fn execute_with(
        &self,
        command: &str,
        arguments: Value,
        file: BorrowedFd<'_>,
    ) -> Result<Value, CommandError> {
        self.run(command, arguments, Some(file)).await
    }

    async fn run(
        &self,
        command: &str,
        arguments: Value,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value, CommandError> {
        let exchange = async { self.connection.lock().await.exchange(command, arguments, file).await };
        timeout(ANSWER_TIME, exchange).await.map_err(|_| CommandError::Timeout(command.to_owned()))?
    }

    /// Takes events, old ones first, until `wanted` says what one of them means.
    pub(crate) async fn event<T>(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, CommandError> {
        let search = async {
            let mut connection = self.connection.lock().await;
            loop {
                while let Some(event) = connection.events.pop_front() {
                    if let Some(found) = wanted(&event) {
                        return Ok(found);
                    }
                }
                let message = connection.message().await?;
                connection.note(message);
            }
        };
        timeout(ANSWER_TIME, search).await.map_err(|_| CommandError::Timeout(what.to_owned()))?
    }
}

impl Connection {
    pub(crate) async fn exchange(
        &mut self,
        command: &str,
        arguments: Value,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value, CommandError> {
        if self.torn {
            return Err(CommandError::Protocol("an earlier command was cut short"));
        }
        self.last_id += 1;
        let id = self.last_id;
        self.stall.commanded(command);
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments, "id": id}));
        self.torn = true;
        let sent = match file {
            Some(file) => send_file(&self.stream, line.as_bytes(), file).await?,
            None => 0,
        };
        self.stream.write_all(&line.as_bytes()[sent..]).await?;
        self.torn = false;
        loop {
            match self.message().await? {
                // Others answer commands whose callers gave up waiting.
                Message::Answer { id: Some(answered), result } if answered == id => {
                    let refused = |reason| CommandError::Refused { command: command.to_owned(), reason };
                    return result.map_err(refused);
                }
                message => self.note(message),
            }
        }
    }

    fn note(&mut self, message: Message) {
        if let Message::Event(event) = message {
            self.stall.happened(&event);
            if self.events.len() == MAX_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }

    /// Takes note of what has come, without waiting for more.
    pub(crate) fn hear(&mut self) -> Result<(), CommandError> {
        loop {
            while let Some(message) = self.unread_message(&mut 0)? {
                self.note(message);
            }
            match self.stream.try_read_buf(&mut self.unread) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                read => more(read?)?,
            }
        }
    }

    /// The next message. Giving up while waiting loses nothing: what was read stays in `unread`.
    async fn message(&mut self) -> Result<Message, CommandError> {
        let mut searched = 0;
        loop {
            if let Some(message) = self.unread_message(&mut searched)? {
                return Ok(message);
            }
            more(self.stream.read_buf(&mut self.unread).await?)?;
        }
    }

    /// The first message of what was read, if it is whole; `searched`: bytes that are known to have no end of one.
    fn unread_message(&mut self, searched: &mut usize) -> Result<Option<Message>, CommandError> {
        if let Some(end) = self.unread[*searched..].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=*searched + end).collect();
            return parse(&line).map(Some);
        }
        *searched = self.unread.len();
        if *searched > MAX_LINE { Err(CommandError::Protocol("a line too long")) } else { Ok(None) }
    }
}

/// Reading nothing is the end.
fn more(read: usize) -> io::Result<()> {
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Sends a file, with as many of the bytes as there is room for: how many.
async fn send_file(stream: &UnixStream, bytes: &[u8], file: BorrowedFd<'_>) -> io::Result<usize> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [file];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::Error::other("there is no room for a descriptor"));
        }
        Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncBufReadExt;

    use super::*;

    #[test]
    fn messages_are_told_apart() {
        assert_eq!(parse(br#"{"QMP": {"version": {}}}"#).unwrap(), Message::Greeting);
        let stop = Event { name: "STOP".into(), data: Value::Null };
        assert_eq!(parse(br#"{"event": "STOP", "timestamp": {}}"#).unwrap(), Message::Event(stop));
        let answer = Message::Answer { id: Some(3), result: Err("no".into()) };
        assert_eq!(parse(br#"{"id": 3, "error": {"class": "X", "desc": "no"}}"#).unwrap(), answer);
        assert!(parse(b"{}").is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in proptest::collection::vec(any::<u8>(), 0..200), text in "[{}\\[\\]\":,a-zQMP0-9]{0,60}") {
            let _ = parse(&line);
            let _ = parse(text.as_bytes());
        }
    }

    async fn served(script: Vec<u8>) -> Result<Qmp, CommandError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(&script).await;
            // Stays for the command, or until the client has had enough.
            let _ = stream.read(&mut [0; 64]).await;
        });
        let result = Qmp::connect(&path).await;
        server.await.unwrap();
        result
    }

    /// As a machine does whose host's disk is full: QEMU tells and waits.
    #[tokio::test]
    async fn a_machine_that_stops_for_want_of_room_is_told_to_go_on() {
        const FULL: &[u8] = br#"{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "nospace": true}}"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut lines = tokio::io::BufReader::new(read).lines();
            write.write_all(b"{\"QMP\":{}}\n").await.unwrap();
            let mut heard = Vec::new();
            // The capabilities, and then, twice over, that it is to go on: at first there is no room yet.
            for id in 1..=3 {
                let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
                heard.push(line["execute"].as_str().unwrap().to_owned());
                write.write_all(format!("{}\n", json!({"return": {}, "id": id})).as_bytes()).await.unwrap();
                write.write_all(&[FULL, b"\n"].concat()).await.unwrap();
            }
            heard
        });
        let qmp = Qmp::connect(&path).await.unwrap();
        qmp.keep_going(0).await.unwrap();
        assert_eq!(server.await.unwrap(), ["qmp_capabilities", "cont", "cont"]);
    }

    /// QEMU has one client at a time: who finds the machine again would wait for ever.
    #[tokio::test]
    async fn a_connection_that_is_dropped_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let client = tokio::spawn(async move {
            let qmp = Qmp::connect(&path).await.unwrap();
            qmp.keep_going(0).await.unwrap();
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"{\"QMP\":{}}\n{\"return\":{},\"id\":1}\n").await.unwrap();
        client.await.unwrap();
        let mut said = Vec::new();
        assert!(timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_rambles_or_leaves_is_an_error() {
        assert!(matches!(served(vec![b'x'; MAX_LINE * 2]).await, Err(CommandError::Protocol(_))));
        assert!(matches!(served(b"{\"QMP\":{}}\n".to_vec()).await, Err(CommandError::Connection(_))));
        let script = b"{\"QMP\":{}}\n{\"event\":\"A\"}\n{\"return\":{},\"id\":9}\n{\"return\":{},\"id\":1}\n";
        assert!(served(script.to_vec()).await.is_ok());
    }
}
