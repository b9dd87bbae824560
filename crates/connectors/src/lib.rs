//! What network connectors mean on this host (SPEC §7).
//!
//! A connector names subnets and security groups. Which there are, and where a subnet's guests may go through the host's
//! own routing, the operator says: [`Networks`]. [`Connectors`] checks what accounts ask for against that, and turns
//! what a MicroVM or a build is bound to into the [`network::Egress`] of its slot.

mod connectors;
mod networks;

pub use connectors::{ConnectorError, Connectors, bind};
pub use networks::{Networks, SecurityGroup, Subnet};
