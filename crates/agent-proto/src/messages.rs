//! The messages themselves.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which messages there are. A snapshot keeps the agent that it was made with, so it is noted with it.
pub const VERSION: u32 = 8;

/// Bytes of entropy that a new life starts with.
pub const ENTROPY_BYTES: usize = 64;

/// Most bytes that one [`Event::Log`] carries; the guest splits longer output.
pub const MAX_LOG_CHUNK: usize = 64 * 1024;

/// Most bytes that one frame of a shell carries, either way.
pub const MAX_SHELL_CHUNK: usize = 16 * 1024;

/// Largest DNS message (RFC 1035 over TCP).
pub const MAX_DNS_MESSAGE: usize = 65_535;

/// What the host asks of the guest; one per stream, answered by one [`Response`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Mount the application's disks and start its container: `Done` or `Failed`.
    StartApp(AppSpec),
    /// Call a lifecycle hook of the application: `Hook`.
    Hook(HookCall),
    /// Stop every process of the application, tell what it has printed, reset its connections to other machines, and
    /// make memory and disk fit for a snapshot; the guest answers `Done`, ends the session and waits for the next
    /// handshake.
    Freeze,
    /// Tell at once what the application and builds have printed by now, which is otherwise gathered for a moment:
    /// `Flushed`.
    Flush,
    /// Give a restored guest its own clock and entropy while the application is still frozen, then let it run and
    /// call its hook: `Hook`, or `Done` without one. One request, because every exchange costs a launch time.
    Live(NewLife),
    /// Build an image from the artifact disk: `Build`.
    Build(BuildSpec),
    /// Connect to a port of the application: after `Done` the stream carries raw bytes both ways.
    Relay {
        /// TCP port on the guest's loopback.
        port: u16,
    },
    /// Send the application's first process the image's STOPSIGNAL, and tell what has been printed once it has ended, or
    /// will not end by it: `Flushed`, behind the exit. One request, because every exchange costs a termination time.
    Stop {
        /// Longest that its end is waited for.
        within_ms: u64,
    },
    /// Power the guest off after answering `Done`.
    Shutdown,
    /// Start a shell beside the application: after `Done` the stream carries [`ShellInput`] frames to the guest and
    /// [`ShellOutput`] frames to the host. Whoever closes it ends the shell; a [`Request::Freeze`] does too.
    Shell,
}

/// The guest's answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The request was carried out and has nothing to tell.
    Done,
    /// What a hook came to.
    Hook(HookOutcome),
    /// What a build came to.
    Build(BuildOutcome),
    /// All output is on its way.
    Flushed {
        /// Of the [`Event::Flushed`] that comes behind it.
        mark: u64,
    },
    /// The request could not be carried out.
    Failed {
        /// What was attempted and why it failed.
        message: String,
    },
}

/// The container to start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppSpec {
    /// ENTRYPOINT, CMD, ENV, USER, WORKDIR of the built image.
    pub config: ImageConfig,
    /// As the build told them: [`BuildOutcome::Ok`]. With any, the machine has the disk `bases`.
    pub base_layers: Vec<String>,
    /// Variables that override the image's, `NAME=value`.
    pub env: Vec<String>,
    /// Host name inside the container.
    pub hostname: String,
    /// `ALL`: every capability and a writable cgroup tree, instead of Docker's defaults.
    pub all_capabilities: bool,
}

/// The part of an OCI image configuration that running it needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// ENTRYPOINT, exec form.
    pub entrypoint: Vec<String>,
    /// CMD: the arguments, or the whole command where there is no entrypoint.
    pub cmd: Vec<String>,
    /// ENV, `NAME=value`.
    pub env: Vec<String>,
    /// USER: `user[:group]`, names or numbers; empty is root.
    pub user: String,
    /// WORKDIR; empty is `/`.
    pub workdir: String,
    /// STOPSIGNAL; empty is SIGTERM.
    pub stop_signal: String,
    /// VOLUME: the paths.
    #[serde(default)]
    pub volumes: Vec<String>,
}

/// A call of one lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// Last part of the hook's path: `ready`, `run`, …
    pub hook: String,
    /// Port that the application serves its hooks on.
    pub port: u16,
    /// How long connecting and answering may take together.
    pub timeout_ms: u64,
    /// JSON body, sent with its content type; a hook without one is a bare POST.
    pub body: Option<Vec<u8>>,
}

/// What a hook call came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookOutcome {
    /// The application answered with this HTTP status.
    Status(u16),
    /// No complete answer within the time allowed.
    TimedOut,
    /// Nothing HTTP is listening: why not.
    ConnectFailed(String),
}

/// What sets one life of a snapshot apart from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLife {
    /// Wall clock to set, nanoseconds since the Unix epoch.
    pub wall_clock: u64,
    /// [`ENTROPY_BYTES`] random bytes for the guest kernel.
    pub entropy: Vec<u8>,
    /// For the container's `/etc/machine-id`: 32 hexadecimal digits. `None`: it keeps the one that it has.
    pub machine_id: Option<String>,
    /// Called as soon as the application runs.
    pub hook: Option<HookCall>,
}

/// An image build.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BuildSpec {
    /// Exact length of the zip on the `artifact` disk, which is padded to whole sectors.
    pub artifact_bytes: u64,
    /// Variables visible to the build's RUN steps, `NAME=value`.
    pub env: Vec<String>,
    /// Name that `FROM` resolves when it says another, `(wanted, local)`: the catalogue's aliases.
    pub base_aliases: Vec<(String, String)>,
    /// Whether the steps' results are to be left on the scratch disk, for a later build that gets it.
    pub keep_steps: bool,
}

/// What a build came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildOutcome {
    /// The container file system, or what of it lies above the catalogue's, is on the `output` disk as an erofs image.
    Ok {
        /// Length of that image.
        code_bytes: u64,
        /// Layers of the `bases` disk that lie below it, the highest first.
        base_layers: Vec<String>,
        /// How to run it.
        config: ImageConfig,
    },
    /// The build failed.
    Failed {
        /// Whose fault it is.
        kind: BuildFailure,
        /// What went wrong, for the person who asked for the build.
        message: String,
    },
}

/// Kinds of build failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildFailure {
    /// The zip is damaged, hostile, or lacks a Dockerfile at its root.
    Artifact,
    /// The Dockerfile could not be built.
    Dockerfile,
    /// A disk of the build ran full.
    DiskFull,
    /// The build machine itself failed.
    Internal,
}

/// What the guest tells unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Output of the application or of a build; at most [`MAX_LOG_CHUNK`] bytes, not split into lines.
    Log {
        /// Where it was written.
        source: LogSource,
        /// The bytes as written.
        bytes: Vec<u8>,
    },
    /// The application's first process ended: its exit code, or 128 + the signal that killed it.
    AppExited {
        /// Exit code.
        code: i32,
    },
    /// What had been printed when this was asked for has been told.
    Flushed {
        /// Counts up, over sessions and snapshots too.
        mark: u64,
    },
}

/// Where a log chunk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogSource {
    /// Standard output of the application.
    Stdout,
    /// Standard error of the application.
    Stderr,
    /// Output of an image build.
    Build,
    /// The guest's kernel, of processes that it killed for want of memory.
    Kernel,
}

/// What the terminal of a shell is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShellInput {
    /// Bytes as if typed, at most [`MAX_SHELL_CHUNK`].
    Keys(Vec<u8>),
    /// The size of the window, in characters.
    Resize {
        /// Its width.
        cols: u16,
        /// Its height.
        rows: u16,
    },
}

/// What comes from the terminal of a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShellOutput {
    /// Bytes to show, at most [`MAX_SHELL_CHUNK`].
    Bytes(Vec<u8>),
    /// The shell has exited; nothing follows.
    Exited,
}

/// First frame of a stream that the guest opens: what follows on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GuestStream {
    /// [`Event`] frames until the session ends.
    Events,
    /// One [`DnsMessage`] frame from the guest, one back (`None`: could not be resolved).
    Dns,
    /// One frame back, an optional [`Metadata`].
    Metadata,
}

/// What a guest may know of itself, for the metadata service in it (SPEC §8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Such as `us-east-1`.
    pub region: String,
    /// Such as `use1-az1`.
    pub availability_zone_id: String,
    /// A secret that the MicroVMs of one image share: 44 characters.
    pub group_key: String,
    /// Those of its role. None: it has no role, or none that may be taken on now.
    pub credentials: Option<Credentials>,
}

/// A role's credentials for a while.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// `ASIA…`.
    pub access_key_id: String,
    /// What signs.
    pub secret_access_key: String,
    /// What every request carries.
    pub session_token: String,
    /// When they were issued, as `2026-01-31T23:59:59Z`.
    pub last_updated: String,
    /// When they end, written likewise.
    pub expiration: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

/// A raw DNS message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DnsMessage(pub(crate) Vec<u8>);
