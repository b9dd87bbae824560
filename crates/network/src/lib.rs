//! What surrounds a MicroVM on its host: a network slot (namespace, tap, egress policy), name resolution on
//! its behalf, and the cgroup its VMM runs in.
//!
//! The policy is the managed network's: a guest reaches public addresses and nothing else. It reaches neither
//! its host nor another guest nor a private range, and nobody opens a connection to it. Two rulesets enforce
//! this independently, one in the slot's namespace and one on the host (see [`rules`]). A slot that is bound to an
//! [`Egress`] reaches what that says instead, and nothing else.
//!
//! Rules by domain name (see [`names`]) let through what a guest's own queries found: the resolver puts the addresses
//! into both rulesets before the guest hears of them.
//!
//! Where the server's own API is to be had inside, it listens in the slots' namespaces itself (see [`endpoint`]).
//!
//! All of this is so for IPv6 as for IPv4 (see the module `ipv6`), in the same namespaces and by the same rules.
//!
//! What a binding refuses is counted by the kernel, and told by [`Pool::refused`].
//!
//! What [`Pool::open`] changes on the host, apart from the slots themselves: the table `inet rekindle_<tag>`,
//! and `net.ipv4.ip_forward`, which is set to 1 and left so, because others may come to rely on it; and the same for IPv6
//! (`net.ipv6.conf.all.forwarding`), unless the host has that switched off. Interfaces whose IPv6 the kernel configures by
//! what routers announce (`accept_ra=1`) go on with it as those of a router (`accept_ra=2`). A host firewall which drops
//! forwarded packets by default must be told to let the slots' interfaces (`rk<tag>-*`) through: no table can overrule
//! another's drop.

pub mod cgroup;
mod command;
mod config;
pub mod dns;
pub mod domain;
pub mod egress;
pub mod endpoint;
mod gate;
mod host;
mod ipv6;
pub mod names;
mod netns;
mod nfset;
mod pins;
mod pool;
mod refused;
mod resolver;
mod routing;
pub mod rules;
mod slot;

pub use command::CommandError;
pub use config::{Cidr, ConfigError, InstanceTag, NetworkConfig};
pub use egress::Egress;
pub use host::{OpenError, check_rules, remove_instance};
pub use pool::{AcquireError, AdoptError, BindError, Pool, ReapError};
pub use refused::{Refused, RefusedTo};
pub use resolver::Resolver;
pub use slot::{GUEST_MAC, Slot, TAP_NAME};
