//! The endpoint data plane (SPEC §5): TLS, the token and port check of every request, wake on request,
//! and forwarding to the application in the MicroVM with the accounting that idleness is judged by.
//!
//! The proxy knows nothing of VMs: whoever owns them implements [`Backend`].

mod activity;
mod allowance;
mod app_tls;
mod backend;
pub mod ca;
mod clients;
mod connection;
mod contact;
mod error;
mod forward;
pub mod headers;
mod host;
mod http1;
pub mod limits;
pub mod login;
mod replay;
mod route;
mod server;
pub mod session;
mod shell;
mod tunnel;
mod upstream;
mod websocket;
mod wire;

pub use activity::{Activity, OpenRequest};
pub use allowance::Allowance;
pub use backend::{Backend, BoxedIo, Connector, FirstAnswer, Io, Life, Site, Target, WakeError};
pub use host::EndpointHosts;
pub use server::{ACME_TLS, Proxy, tls_config};
pub use shell::{Farewell, Shell, ShellInput, ShellOutput, client_input};
