//! Every limit of the data plane, in one place.

use std::time::Duration;

/// Header fields of one request.
pub const MAX_HEADERS: usize = 128;
/// Bytes of one request's header section.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Client connections open at once; more wait in the listen queue.
pub const MAX_CONNECTIONS: usize = 16 * 1024;
/// Of these, connections of one client: an address, or an IPv6 network of 64 bits. More are closed at once.
pub const MAX_CONNECTIONS_PER_CLIENT: usize = MAX_CONNECTIONS / 4;
/// HTTP/2 streams open at once on one client connection.
pub const MAX_STREAMS: u32 = 256;
/// HTTP/2 streams that a client has reset before they were taken up; one with more is cut.
pub const MAX_PENDING_RESETS: usize = 20;
/// HTTP/2 streams that were reset for a client's errors; one with more is cut.
pub const MAX_ERROR_RESETS: usize = 64;
/// For a client to finish its TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For an HTTP/1.1 client to send a whole request head; a kept-alive connection may be silent as long.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// How often an HTTP/2 client, or a shell's, is pinged, so that one that vanished is noticed.
pub const PING_INTERVAL: Duration = Duration::from_secs(60);
/// How long a request is held while its MicroVM wakes. The resume hook alone may take 60 s.
pub const WAKE_DEADLINE: Duration = Duration::from_secs(90);
/// For the application to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's body that are kept until the port's first answer in a life, to be sent again over TLS.
pub const MAX_REPLAY: usize = 1024 * 1024;
/// For an application to shake hands when it is tried whether it speaks TLS.
pub const TLS_PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// When a client whose MicroVM could not be woken for want of room is told to come again.
pub const RETRY_AFTER_SECONDS: u32 = 5;
/// How often a request tries again when its MicroVM is suspended between waking and forwarding.
pub const WAKE_ATTEMPTS: usize = 3;
/// Bytes of one message of a WebSocket that carries a TCP connection.
pub const MAX_TUNNEL_MESSAGE: usize = 1024 * 1024;
/// Read of such a connection at a time.
pub const TUNNEL_READ: usize = 16 * 1024;
/// For a client to answer a WebSocket's close.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Kept-alive connections to an application that nothing uses are closed after this long.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle kept-alive connections to one port of an application: as many as one HTTP/2 client has requests at once, whose
/// connections would otherwise be opened again and again.
pub const POOL_MAX_IDLE: usize = MAX_STREAMS as usize;
/// How often those are looked for, and those that the application has closed.
pub const POOL_SWEEP: Duration = Duration::from_secs(5);
/// Bytes read from an application at a time, at most: more would have left the processor's cache before it is encrypted.
pub const APP_BUFFER: usize = 64 * 1024;
/// Shells open at once in one MicroVM.
pub const MAX_SHELLS: usize = 16;
/// For a shell to start.
pub const SHELL_START_TIMEOUT: Duration = Duration::from_secs(30);
/// One message of a shell's client; longer ones end the connection (1009).
pub const MAX_SHELL_MESSAGE: usize = 1024 * 1024;
/// Longest text that is looked at for a command to the shell's terminal; longer ones are keystrokes.
pub const MAX_SHELL_COMMAND: usize = 256;
/// Keystrokes handed on at a time.
pub const SHELL_KEYS: usize = 16 * 1024;
/// Bytes read at a time from a shell's client.
pub const SHELL_READ_BUFFER: usize = 16 * 1024;
/// Output and control frames kept for a shell's client that does not read; then the shell is held back.
pub const SHELL_WRITE_BUFFER: usize = 256 * 1024;
/// A shell's client that has sent nothing for so long, not even answers to pings, is gone.
pub const SHELL_SILENCE: Duration = Duration::from_secs(150);
/// For requests in flight to finish when the server stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Before accepting again after an accept failed (the usual reason is that descriptors ran out).
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Bytes of a cookie's name and value that every browser takes (RFC 6265bis §5.5).
pub const MAX_COOKIE: usize = 4096;
