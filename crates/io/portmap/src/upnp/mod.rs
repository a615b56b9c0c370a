//! UPnP Internet Gateway Device, versions 1 and 2, by `igd-next`.
//!
//! That crate takes the first router that answers its search. Here every interface is searched, every router that
//! answers is considered, the default gateway first, and the next one is tried if one refuses. The same external port as
//! the internal one is requested, then another: in version 2 the router chooses it (AddAnyPortMapping), else the client
//! does.
//!
//! Some refusals lead to another request: error 725 (no leases) to a permanent mapping, which is recorded for deletion;
//! errors 726 and 727 (only wildcards) to wildcards; errors 718 and 729 (conflict) to another port.

mod client;
mod description;
mod discovery;
mod soap;
mod ssdp;

pub(crate) use client::Client;
pub(crate) use discovery::discover;
pub(crate) use ssdp::Source;
