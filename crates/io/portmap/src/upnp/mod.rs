//! UPnP Internet Gateway Device, versions 1 and 2, by `igd-next`.
//!
//! That crate takes the first router that answers its search; here every interface is searched, every router that
//! answers is looked at, the default gateway first, and the next is tried if one refuses. The port of the same number
//! is asked for, then another: on version 2 the router chooses (AddAnyPortMapping), else we do. Refusals are worked
//! around where the standard has a way: no leases (725) means a permanent mapping, noted for deletion; only wildcards
//! (726, 727) means wildcards; a conflict (718, 729) means another port.

mod description;
mod soap;
mod ssdp;

pub(crate) use client::Client;
pub(crate) use discovery::{Router, discover};
pub(crate) use ssdp::Source;

mod client;
mod discovery;
